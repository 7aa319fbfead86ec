"""The upscaler: photographs in, photographs out."""

import mrda_utils.openmp  # noqa: F401  (before torch)

from importlib import import_module
from typing import Any

__all__ = ["backend_functions", "network_functions", "upscale"]
_HOMES = {"backend_functions": "backends", "network_functions": "tiling", "upscale": "tiling"}


def __getattr__(name: str) -> Any:
    """Import when asked for: torch takes seconds, in which a program can already say something."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
