"""What phones, programs and the web make of a photograph: milder than Real-ESRGAN's degradation, and often nothing."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mrda_data.degradation.base import Task, chance, check_multiple, choice, quantise, register, uniform
from mrda_data.degradation.jpeg import libjpeg
from mrda_data.degradation.kernels import filter2d, gaussian_kernel
from mrda_data.degradation.noise import add_gaussian_noise, add_poisson_noise
from mrda_data.degradation.ranges import PositiveRange, Probability, QualityRange, Range
from mrda_data.degradation.realesrgan import MODES
from mrda_utils.fields import Section
from mrda_utils.resize import imresize

KERNEL_SIZE = 21
SHARPENING_SIGMA = 1.0  # pixels of lq


class Photo(Section):
    """A photograph that was taken, saved as JPEG and perhaps passed on: resized, sharpened and saved once more."""

    type: Literal["photo"] = Field(description="kind of degradation")
    blur_prob: Probability = Field(0.5, description="of blur")
    sigma: PositiveRange = Field([0.3, 3.0], description="its standard deviation, pixels of gt")
    noise_prob: Probability = Field(0.5, description="of noise, half of it Gaussian, half of it Poisson")
    noise_sigma_255: Range = Field([1.0, 15.0], description="Gaussian standard deviation, on the 0-255 scale")
    poisson_scale: Range = Field([0.1, 1.0], description="factor of the Poisson noise")
    gray_noise_prob: Probability = Field(0.3, description="of equal noise in all channels")
    jpeg_prob: Probability = Field(0.6, description="of JPEG compression, chroma subsampled")
    jpeg_quality: QualityRange = Field([30.0, 95.0], description="its quality")
    second_prob: Probability = Field(0.3, description="of being passed on")
    second_resize: PositiveRange = Field([0.7, 2.0], description="size before it, relative to the sides of lq")
    sharpen_prob: Probability = Field(0.3, description="of sharpening when passed on")
    sharpen_amount: Range = Field([0.2, 1.0], description="factor of the difference to a blur of one pixel of lq")
    second_jpeg_prob: Probability = Field(0.9, description="of JPEG compression when passed on")
    second_jpeg_quality: QualityRange = Field([40.0, 95.0], description="its quality")


@register(Photo)
class PhotoDegradation:
    """Blur, downsampling, noise, JPEG; when passed on, resizing, sharpening and JPEG again.

    A task has only what is applied: `sigma` (pixels of gt); `noise_sigma_255` or `poisson_scale`, and `gray_noise`;
    `jpeg_quality`; when passed on, `second_resize` (sides of the first image over those of lq), `resize_mode`,
    `sharpen_amount` and `second_jpeg_quality`. An empty task is bicubic downsampling.

    Args:
        scale: downsampling factor.
        options: see `Photo`.
    """

    def __init__(self, *, scale: int, **options: Any) -> None:
        self.scale = scale
        self.opt = Photo(type="photo", **options)

    def sample(self, generator: torch.Generator) -> Task:
        """Draw what happens, and its parameters."""
        opt, task = self.opt, {}
        if chance(generator, opt.blur_prob):
            task["sigma"] = uniform(generator, *opt.sigma)
        if chance(generator, opt.noise_prob):
            name = choice(generator, ("noise_sigma_255", "poisson_scale"))
            task[name] = uniform(generator, *getattr(opt, name))
            task["gray_noise"] = chance(generator, opt.gray_noise_prob)
        if chance(generator, opt.jpeg_prob):
            task["jpeg_quality"] = uniform(generator, *opt.jpeg_quality)
        if chance(generator, opt.second_prob):
            task["second_resize"] = uniform(generator, *opt.second_resize)
            task["resize_mode"] = choice(generator, MODES)
            if chance(generator, opt.sharpen_prob):
                task["sharpen_amount"] = uniform(generator, *opt.sharpen_amount)
            if chance(generator, opt.second_jpeg_prob):
                task["second_jpeg_quality"] = uniform(generator, *opt.second_jpeg_quality)
        return task

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """See `Degradation.apply`; gt may be of any size that is a multiple of `scale`."""
        return photo_degrade(gt, task, self.scale, generator)


def photo_degrade(gt: Tensor, task: Task, scale: int, generator: torch.Generator) -> Tensor:
    """Degrade with a task of `PhotoDegradation`; see `Degradation.apply`."""
    check_multiple(gt, scale)
    size = [side // scale for side in gt.shape[-2:]]
    image = gt
    if "sigma" in task:
        image = filter2d(image, gaussian_kernel(task["sigma"], task["sigma"], kernel_size=KERNEL_SIZE))
    if "second_resize" in task:
        first = [max(1, min(round(side * task["second_resize"]), side * scale)) for side in size]
        image = F.interpolate(image, first, mode="bicubic", antialias=True)
    else:
        image = imresize(image, 1 / scale)
    if "noise_sigma_255" in task:
        image = add_gaussian_noise(image, task["noise_sigma_255"], task["gray_noise"], generator)
    elif "poisson_scale" in task:
        image = add_poisson_noise(image, task["poisson_scale"], task["gray_noise"], generator)
    if "jpeg_quality" in task:
        image = libjpeg(image, task["jpeg_quality"])
    if "second_resize" in task:
        smooth = {} if task["resize_mode"] == "area" else {"antialias": True}
        image = F.interpolate(image, size, mode=task["resize_mode"], **smooth)
    if "sharpen_amount" in task:
        blurred = filter2d(image, gaussian_kernel(SHARPENING_SIGMA, SHARPENING_SIGMA, kernel_size=7))
        image = image + task["sharpen_amount"] * (image - blurred)
    if "second_jpeg_quality" in task:
        image = libjpeg(image, task["second_jpeg_quality"])
    return quantise(image)
