"""The kinds of degradation and their ranges."""

from __future__ import annotations

import typing
from typing import Annotated, Literal

from annotated_types import Len
from pydantic import Field, model_validator

from mrda_utils.schema.fields import (
    FactorRange,
    KernelSize,
    LargestKernel,
    PositiveRange,
    Probabilities,
    Probability,
    QualityRange,
    Range,
    RangeAroundOne,
    Section,
)


class Bicubic(Section):
    """MATLAB bicubic downsampling alone."""

    type: Literal["bicubic"] = Field(description="kind of degradation")


class Isotropic(Section):
    """Isotropic Gaussian blur, one width a task."""

    type: Literal["isotropic"] = Field(description="kind of degradation")
    sigma: PositiveRange = Field(description="range of the blur's standard deviation, pixels of gt")
    kernel_size: KernelSize = Field(21, description="pixels, odd")


class Anisotropic(Section):
    """Anisotropic Gaussian blur and noise, one kernel and one noise level a task; angles uniform on [0, pi)."""

    type: Literal["anisotropic"] = Field(description="kind of degradation")
    sigma_x: PositiveRange = Field(description="range of the standard deviation along the first axis, pixels of gt")
    sigma_y: PositiveRange = Field(description="range of the standard deviation along the second axis, pixels of gt")
    noise_sigma_255: Range = Field(description="range of the noise's standard deviation, on the 0-255 scale")
    kernel_size: KernelSize = Field(21, description="pixels, odd")


BlurKernel = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
_BLUR_KERNELS = list(typing.get_args(BlurKernel))
_BLUR_KERNEL_PROB = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]


class RealESRGAN(Section):
    """Real-ESRGAN's second-order degradation under its own option names; defaults are its published values.

    Options ending in 2 are those of the second round.
    """

    type: Literal["realesrgan"] = Field(description="kind of degradation")

    gt_usm: bool = Field(True, description="degrade the ground truth after unsharp masking")
    blur_kernel_size: LargestKernel = Field(21, description="largest blur kernel, pixels, odd; drawn from 7, 9, ...")
    kernel_list: list[BlurKernel] = Field(_BLUR_KERNELS, description="kinds of blur kernels other than sinc")
    kernel_prob: Probabilities = Field(_BLUR_KERNEL_PROB, description="probability of each of them")
    sinc_prob: Probability = Field(0.1, description="of a sinc kernel")
    blur_sigma: PositiveRange = Field([0.2, 3.0], description="standard deviations, pixels")
    betag_range: RangeAroundOne = Field([0.5, 4.0], description="exponent of generalized Gaussians; half of them < 1")
    betap_range: RangeAroundOne = Field([1.0, 2.0], description="exponent of plateau kernels; half of them < 1")
    resize_prob: Annotated[Probabilities, Len(3, 3)] = Field([0.2, 0.7, 0.1], description="up, down, keep")
    resize_range: FactorRange = Field([0.15, 1.5], description="factor, relative to gt")
    gaussian_noise_prob: Probability = Field(0.5, description="of Gaussian noise; otherwise it is Poisson noise")
    noise_range: Range = Field([1.0, 30.0], description="Gaussian standard deviation, on the 0-255 scale")
    poisson_scale_range: Range = Field([0.05, 3.0], description="factor of the Poisson noise")
    gray_noise_prob: Probability = Field(0.4, description="of equal noise in all channels")
    jpeg_range: QualityRange = Field([30.0, 95.0], description="JPEG quality")

    second_blur_prob: Probability = Field(0.8, description="of a second blur at all")
    blur_kernel_size2: LargestKernel = Field(21, description="likewise; of the final sinc filter too")
    kernel_list2: list[BlurKernel] = Field(_BLUR_KERNELS, description="kinds of blur kernels other than sinc")
    kernel_prob2: Probabilities = Field(_BLUR_KERNEL_PROB, description="probability of each of them")
    sinc_prob2: Probability = Field(0.1, description="of a sinc kernel")
    blur_sigma2: PositiveRange = Field([0.2, 1.5], description="standard deviations, pixels")
    betag_range2: RangeAroundOne = Field([0.5, 4.0], description="exponent of generalized Gaussians")
    betap_range2: RangeAroundOne = Field([1.0, 2.0], description="exponent of plateau kernels")
    resize_prob2: Annotated[Probabilities, Len(3, 3)] = Field([0.3, 0.4, 0.3], description="up, down, keep")
    resize_range2: FactorRange = Field([0.3, 1.2], description="factor, relative to lq")
    gaussian_noise_prob2: Probability = Field(0.5, description="of Gaussian noise; otherwise it is Poisson noise")
    noise_range2: Range = Field([1.0, 25.0], description="Gaussian standard deviation, on the 0-255 scale")
    poisson_scale_range2: Range = Field([0.05, 2.5], description="factor of the Poisson noise")
    gray_noise_prob2: Probability = Field(0.4, description="of equal noise in all channels")
    jpeg_range2: QualityRange = Field([30.0, 95.0], description="JPEG quality")

    final_sinc_prob: Probability = Field(0.8, description="of a sinc filter at the end")

    @model_validator(mode="after")
    def _kernel_probabilities(self) -> RealESRGAN:
        for kinds, probabilities in (("kernel_list", "kernel_prob"), ("kernel_list2", "kernel_prob2")):
            wanted, given = len(getattr(self, kinds)), len(getattr(self, probabilities))
            if wanted != given:
                raise ValueError(f"{probabilities}: {given} values, but {kinds} has {wanted}")
        return self


Degradation = Annotated[Bicubic | Isotropic | Anisotropic | RealESRGAN, Field(discriminator="type")]
