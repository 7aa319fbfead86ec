"""Real-ESRGAN's second-order degradation (Wang et al., ICCVW 2021), every parameter drawn once a task."""

from __future__ import annotations

import math
import typing
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Len
from basicsr.data import degradations as basicsr_kernels
from pydantic import Field, model_validator
from torch import Tensor

from mrda_data.degradation.base import Task, chance, check_multiple, choice, quantise, register, uniform
from mrda_data.degradation.jpeg import jpeg
from mrda_data.degradation.kernels import filter2d
from mrda_data.degradation.noise import add_gaussian_noise, add_poisson_noise
from mrda_data.degradation.ranges import (
    FactorRange,
    LargestKernel,
    PositiveRange,
    Probabilities,
    Probability,
    QualityRange,
    Range,
    RangeAroundOne,
)
from mrda_data.degradation.sharpen import usm_sharpen
from mrda_utils.fields import Section

MODES = ("area", "bilinear", "bicubic")
SMALLEST_KERNEL = 7


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


@register(RealESRGAN)
class RealESRGANDegradation:
    """Blur, resize, noise and JPEG, twice; a final sinc filter before or after the second JPEG.

    A task contains, for the first round,

    - `kernel_type`, `kernel_size` (pixels) and `omega_c` (cut-off of a sinc kernel, radians a pixel) or `sigma_x`,
      `sigma_y` (pixels), `theta` (radians), `beta` (exponent; 1 for a Gaussian),
    - `resize_scale` (relative to the sides of gt) and `resize_mode`,
    - `noise_sigma_255` or `poisson_scale`, and `gray_noise`,
    - `jpeg_quality`;

    the same for the second with the prefix `second_` (`second_resize_scale` is relative to the sides of lq; without a
    second blur its keys are missing); `final_sinc_size` and `final_sinc_omega_c` if there is a final filter,
    `final_resize_mode`, and `final_jpeg_last`. BasicSR draws noise level, gray noise and JPEG quality for each image;
    here they belong to the task.

    Args:
        scale: downsampling factor.
        options: see `RealESRGAN`; the published values are the defaults.
    """

    def __init__(self, *, scale: int, **options: Any) -> None:
        self.scale = scale
        self.opt = RealESRGAN(type="realesrgan", **options).model_dump()
        self.second_opt = {key[:-1]: value for key, value in self.opt.items() if key.endswith("2")}

    def sample(self, generator: torch.Generator) -> Task:
        """Draw every parameter; the noise itself is left to `apply`."""
        task = _draw_kernel(self.opt, generator) | _draw_corruption(self.opt, generator)
        blurs_again = chance(generator, self.opt["second_blur_prob"])
        second = _draw_kernel(self.second_opt, generator) if blurs_again else {}
        second |= _draw_corruption(self.second_opt, generator)
        task |= {f"second_{key}": value for key, value in second.items()}
        if chance(generator, self.opt["final_sinc_prob"]):
            task["final_sinc_size"] = _draw_size(self.second_opt, generator)
            task["final_sinc_omega_c"] = uniform(generator, math.pi / 3, math.pi)
        return task | {"final_resize_mode": choice(generator, MODES), "final_jpeg_last": chance(generator, 0.5)}

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """See `Degradation.apply`; gt may be of any size that is a multiple of `scale`."""
        check_multiple(gt, self.scale)
        second = {key.removeprefix("second_"): value for key, value in task.items() if key.startswith("second_")}
        lq_size = [side // self.scale for side in gt.shape[-2:]]

        image = filter2d(usm_sharpen(gt) if self.opt["gt_usm"] else gt, blur_kernel(task))
        factor = max(task["resize_scale"], 1.001 / min(gt.shape[-2:]))  # a pixel at least
        image = F.interpolate(image, scale_factor=factor, mode=task["resize_mode"])
        image = _add_noise(image, task, generator)
        image = jpeg(image, task["jpeg_quality"])

        if "kernel_type" in second:
            image = filter2d(image, blur_kernel(second))
        size = [max(1, int(side * second["resize_scale"])) for side in lq_size]
        image = F.interpolate(image, size=size, mode=second["resize_mode"])
        image = _add_noise(image, second, generator)
        if not task["final_jpeg_last"]:
            image = jpeg(image, second["jpeg_quality"])
        image = F.interpolate(image, size=lq_size, mode=task["final_resize_mode"])
        if "final_sinc_size" in task:
            image = filter2d(image, sinc_kernel(task["final_sinc_omega_c"], task["final_sinc_size"]))
        if task["final_jpeg_last"]:
            image = jpeg(image, second["jpeg_quality"])
        return quantise(image)


# ------------------------------------------------------------------------------------------------------------- drawing
def _draw_size(opt: dict[str, Any], generator: torch.Generator) -> int:
    return choice(generator, range(SMALLEST_KERNEL, opt["blur_kernel_size"] + 1, 2))


def _draw_kernel(opt: dict[str, Any], generator: torch.Generator) -> Task:
    size = _draw_size(opt, generator)
    if chance(generator, opt["sinc_prob"]):
        lowest = math.pi / 3 if size < 13 else math.pi / 5  # a small kernel cannot represent a low cut-off
        return {"kernel_type": "sinc", "kernel_size": size, "omega_c": uniform(generator, lowest, math.pi)}
    kind = choice(generator, opt["kernel_list"], opt["kernel_prob"])
    sigma_x = sigma_y = uniform(generator, *opt["blur_sigma"])
    theta, beta = 0.0, 1.0
    if kind.endswith("aniso"):
        sigma_y, theta = uniform(generator, *opt["blur_sigma"]), uniform(generator, -math.pi, math.pi)
    if kind.startswith(("generalized", "plateau")):
        low, high = opt["betag_range" if kind.startswith("generalized") else "betap_range"]
        beta = uniform(generator, low, 1) if chance(generator, 0.5) else uniform(generator, 1, high)
    shape = {"sigma_x": sigma_x, "sigma_y": sigma_y, "theta": theta, "beta": beta}
    return {"kernel_type": kind, "kernel_size": size, **shape}


def _draw_corruption(opt: dict[str, Any], generator: torch.Generator) -> Task:
    """Resize, noise and JPEG of one round."""
    low, high = opt["resize_range"]
    direction = choice(generator, ("up", "down", "keep"), opt["resize_prob"])
    bounds = {"up": (1, high), "down": (low, 1), "keep": (1, 1)}[direction]
    task: Task = {"resize_scale": uniform(generator, *bounds), "resize_mode": choice(generator, MODES)}
    if chance(generator, opt["gaussian_noise_prob"]):
        task["noise_sigma_255"] = uniform(generator, *opt["noise_range"])
    else:
        task["poisson_scale"] = uniform(generator, *opt["poisson_scale_range"])
    task["gray_noise"] = chance(generator, opt["gray_noise_prob"])
    task["jpeg_quality"] = uniform(generator, *opt["jpeg_range"])
    return task


# ------------------------------------------------------------------------------------------------------------ applying
def sinc_kernel(omega_c: float, size: int) -> Tensor:
    """(size, size) float64 low-pass filter that cuts off at `omega_c` radians a pixel in all directions, sum 1."""
    with np.errstate(invalid="ignore"):  # 0/0 at the centre, which BasicSR then fills in
        return torch.from_numpy(basicsr_kernels.circular_lowpass_kernel(omega_c, size))


def blur_kernel(task: Task) -> Tensor:
    """(size, size) float64 kernel of a round from its `kernel_type`, `kernel_size` and shape, sum 1."""
    kind, size = task["kernel_type"], task["kernel_size"]
    if kind == "sinc":
        return sinc_kernel(task["omega_c"], size)
    plateau = kind.startswith("plateau")
    density = basicsr_kernels.bivariate_plateau if plateau else basicsr_kernels.bivariate_generalized_Gaussian
    shape = (task[key] for key in ("sigma_x", "sigma_y", "theta", "beta"))
    return torch.from_numpy(density(size, *shape, isotropic=False))


def _add_noise(image: Tensor, task: Task, generator: torch.Generator) -> Tensor:
    if "noise_sigma_255" in task:
        return add_gaussian_noise(image, task["noise_sigma_255"], task["gray_noise"], generator)
    return add_poisson_noise(image, task["poisson_scale"], task["gray_noise"], generator)
