"""The upscaler: photographs in, photographs out."""

from mrda_inference.tiling import network_functions, upscale

__all__ = ["network_functions", "upscale"]
