"""The ground that every other package stands on: files, checkpoints, processes, seeds, errors, field types."""

__version__ = "0.3.0"
