"""What turns ground truth into LR images: `sample` draws one task's parameters, `apply` degrades a batch with them."""

from __future__ import annotations

from mrda_data.degradation.base import KINDS, Degradation, Task, build_degradation, register
from mrda_data.degradation.bicubic import BicubicDegradation
from mrda_data.degradation.classic import AnisotropicDegradation, IsotropicDegradation
from mrda_data.degradation.mixture import MixtureDegradation
from mrda_data.degradation.photo import PhotoDegradation
from mrda_data.degradation.realesrgan import RealESRGANDegradation

__all__ = [
    "KINDS",
    "AnisotropicDegradation",
    "BicubicDegradation",
    "Degradation",
    "IsotropicDegradation",
    "MixtureDegradation",
    "PhotoDegradation",
    "RealESRGANDegradation",
    "Task",
    "build_degradation",
    "register",
]
