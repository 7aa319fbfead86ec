"""The classic degradation: blur, bicubic downsampling, noise, 8 bits (paper Eq. 1, Sec. IV-A)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mrda_data.degradation.base import Task, check_multiple, quantise, register, uniform
from mrda_data.degradation.kernels import blur, gaussian_kernel
from mrda_data.degradation.noise import add_gaussian_noise
from mrda_data.degradation.ranges import KernelSize, PositiveRange, Range
from mrda_utils.fields import Section
from mrda_utils.resize import imresize


def classic_degrade(gt: Tensor, task: Task, scale: int, kernel_size: int, generator: torch.Generator) -> Tensor:
    """Lq = quantise((gt * k) downsampled + n), paper Eq. (1); `Degradation.apply` with the classic task's parameters.

    Args:
        gt: (N, 3, H, W) RGB in [0, 1].
        task: `sigma_x`, `sigma_y` pixels, both 0 for no blur; `theta` radians; `noise_sigma_255` on the 0-255 scale.
        scale: downsampling factor.
        kernel_size: odd, pixels.
        generator: CPU generator of the noise.
    """
    check_multiple(gt, scale)
    if task["sigma_x"] > 0:
        gt = blur(gt, gaussian_kernel(task["sigma_x"], task["sigma_y"], task["theta"], kernel_size))
    lq = imresize(gt, 1 / scale)
    if task["noise_sigma_255"] > 0:
        lq = add_gaussian_noise(lq, task["noise_sigma_255"], False, generator)
    return quantise(lq)


class Isotropic(Section):
    """Isotropic Gaussian blur, one width a task."""

    type: Literal["isotropic"] = Field(description="kind of degradation")
    sigma: PositiveRange = Field(description="range of the blur's standard deviation, pixels of gt")
    kernel_size: KernelSize = Field(21, description="pixels, odd")


@register(Isotropic)
class IsotropicDegradation:
    """Isotropic Gaussian blur without noise, the setting of the Gaussian8 tables.

    Args:
        scale: downsampling factor.
        sigma: closed range of the blur's standard deviation, pixels of gt.
        kernel_size: odd, pixels.
    """

    def __init__(self, *, scale: int, sigma: tuple[float, float], kernel_size: int = 21) -> None:
        self.scale, self.sigma, self.kernel_size = scale, sigma, kernel_size

    def sample(self, generator: torch.Generator) -> Task:
        """Draw one width, uniformly."""
        sigma = uniform(generator, *self.sigma)
        return {"sigma_x": sigma, "sigma_y": sigma, "theta": 0.0, "noise_sigma_255": 0.0}

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """See `Degradation.apply`."""
        return classic_degrade(gt, task, self.scale, self.kernel_size, generator)


class Anisotropic(Section):
    """Anisotropic Gaussian blur and noise, one kernel and one noise level a task; angles uniform on [0, pi)."""

    type: Literal["anisotropic"] = Field(description="kind of degradation")
    sigma_x: PositiveRange = Field(description="range of the standard deviation along the first axis, pixels of gt")
    sigma_y: PositiveRange = Field(description="range of the standard deviation along the second axis, pixels of gt")
    noise_sigma_255: Range = Field(description="range of the noise's standard deviation, on the 0-255 scale")
    kernel_size: KernelSize = Field(21, description="pixels, odd")


@register(Anisotropic)
class AnisotropicDegradation:
    """Anisotropic Gaussian blur and noise, the paper's second classic setting; the angle is uniform on [0, pi).

    Args:
        scale: downsampling factor.
        sigma_x: closed range of the standard deviation along the first axis, pixels of gt.
        sigma_y: the same along the second axis.
        noise_sigma_255: closed range of the noise's standard deviation on the 0-255 scale.
        kernel_size: odd, pixels.
    """

    def __init__(
        self,
        *,
        scale: int,
        sigma_x: tuple[float, float],
        sigma_y: tuple[float, float],
        noise_sigma_255: tuple[float, float],
        kernel_size: int = 21,
    ) -> None:
        self.scale, self.kernel_size = scale, kernel_size
        self.sigma_x, self.sigma_y, self.noise_sigma_255 = sigma_x, sigma_y, noise_sigma_255

    def sample(self, generator: torch.Generator) -> Task:
        """Draw both widths, the angle and the noise level, uniformly."""
        return {
            "sigma_x": uniform(generator, *self.sigma_x),
            "sigma_y": uniform(generator, *self.sigma_y),
            "theta": uniform(generator, 0, math.pi),
            "noise_sigma_255": uniform(generator, *self.noise_sigma_255),
        }

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """See `Degradation.apply`."""
        return classic_degrade(gt, task, self.scale, self.kernel_size, generator)
