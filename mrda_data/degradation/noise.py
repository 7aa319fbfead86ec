"""Noise of real photographs: Gaussian (sensor) and Poisson (light), coloured or gray, as in Real-ESRGAN."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from mrda_data.degradation.base import quantise


def add_gaussian_noise(image: Tensor, sigma_255: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise and clip to [0, 1].

    Args:
        image: (N, 3, H, W) RGB in [0, 1].
        sigma_255: standard deviation on the 0-255 scale.
        gray: one noise value a pixel for all channels; every image has noise of its own either way.
        generator: CPU generator of the noise.
    """
    n, channels, height, width = image.shape
    noise = torch.randn(n, 1 if gray else channels, height, width, generator=generator)
    return (image + (sigma_255 / 255 * noise).to(image)).clamp(0, 1)


def add_poisson_noise(image: Tensor, scale: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add `scale` times the deviation of a photon count from its mean and clip to [0, 1].

    White stands for as many photons as an image has distinct 8-bit values, rounded up to a power of two.

    Args:
        image: (N, 3, H, W) RGB in [0, 1].
        scale: factor of the noise; 1 for that of the photon count itself.
        gray: count photons of the luminance and add the same deviation to all channels.
        generator: CPU generator of the counts.
    """
    mean = quantise(rgb_to_grayscale(image) if gray else image)
    values = (mean * 255).round().long().flatten(1)
    distinct = torch.zeros(len(image), 256, device=image.device).scatter_(1, values, 1.0).sum(1)
    photons = (2 ** distinct.log2().ceil()).to(image).view(-1, 1, 1, 1)
    count = torch.poisson((mean * photons).cpu(), generator=generator).to(image)
    return (image + scale * (count / photons - mean)).clamp(0, 1)
