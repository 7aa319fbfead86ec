"""Foundation of all other packages: files, checkpoints, how processes agree, seeds, errors, field types."""

__version__ = "0.3.0"
