"""The upscaler: photographs in, photographs out."""

import mrda_utils.openmp  # noqa: F401  (before torch)

from mrda_inference.backends import backend_functions
from mrda_inference.tiling import network_functions, upscale

__all__ = ["backend_functions", "network_functions", "upscale"]
