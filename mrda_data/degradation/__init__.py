"""What turns ground truth into LR images: `sample` draws one task's parameters, `apply` degrades a batch with them."""

from __future__ import annotations

from mrda_data.degradation.base import Degradation, Task
from mrda_data.degradation.bicubic import BicubicDegradation
from mrda_data.degradation.classic import AnisotropicDegradation, IsotropicDegradation
from mrda_data.degradation.realesrgan import RealESRGANDegradation

_TYPES = {
    "bicubic": BicubicDegradation,
    "isotropic": IsotropicDegradation,
    "anisotropic": AnisotropicDegradation,
    "realesrgan": RealESRGANDegradation,
}


def build_degradation(opt: dict, scale: int) -> Degradation:
    """Build the degradation of an option file's `degradation` section: its `type` and that class's arguments."""
    arguments = {key: value for key, value in opt.items() if key != "type"}
    return _TYPES[opt["type"]](scale=scale, **arguments)


__all__ = [
    "AnisotropicDegradation",
    "BicubicDegradation",
    "Degradation",
    "IsotropicDegradation",
    "RealESRGANDegradation",
    "Task",
    "build_degradation",
]
