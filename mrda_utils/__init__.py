"""What every room of the project needs: versions, options, checkpoints, pipelines, reports."""

__version__ = "0.1.0"
