"""Gaussian noise, and that of photographs (sensor and light), coloured or gray, as in Real-ESRGAN.

Noise is drawn on the device of the image: the CPU and CUDA draw different noise, each the same one every time.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import poisson
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from mrda_utils.tensor_cache import tensor_cache

_AT_ONCE = 2**21  # values; memory for more would come from the system each time, which takes longer than the draws
_COUNTS = 512  # of photons that are distinguished: 16 standard deviations above the largest mean, 256


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """`generator` itself on its own device; elsewhere a new one, seeded by a draw from it. Waits for no device."""
    if generator.device == device:
        return generator
    seed = torch.randint(2**63 - 1, (), generator=generator).item()
    return torch.Generator(device).manual_seed(seed)


def add_gaussian_noise(image: Tensor, sigma_255: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise and clip to [0, 1].

    Args:
        image: (N, 3, H, W) RGB in [0, 1].
        sigma_255: standard deviation on the 0-255 scale.
        gray: one noise value a pixel for all channels; every image has noise of its own either way.
        generator: CPU generator of the noise, see `generator_on`.
    """
    n, channels, height, width = image.shape
    shape = (n, 1 if gray else channels, height, width)
    noise = torch.randn(shape, generator=generator_on(image.device, generator), device=image.device)
    return (image + (sigma_255 / 255 * noise).to(image)).clamp(0, 1)


def add_poisson_noise(image: Tensor, scale: float, gray: bool, generator: torch.Generator) -> Tensor:
    """Add `scale` times the deviation of a photon count from its mean and clip to [0, 1].

    White is as many photons as an image has distinct 8-bit values, rounded up to a power of two.

    Args:
        image: (N, 3, H, W) RGB in [0, 1].
        scale: factor of the noise; 1 for that of the photon count itself.
        gray: count photons of the luminance and add the same deviation to all channels.
        generator: CPU generator of the counts, see `generator_on`.
    """
    generator = generator_on(image.device, generator)
    parts = image.split(max(1, _AT_ONCE // image[0].numel()))
    return torch.cat([_with_photon_noise(part, scale, gray, generator) for part in parts])


def _with_photon_noise(image: Tensor, scale: float, gray: bool, generator: torch.Generator) -> Tensor:
    values = (rgb_to_grayscale(image) if gray else image).clamp(0, 1).mul_(255).round_()
    levels = values.long()
    distinct = torch.zeros(len(image), 256, device=image.device).scatter_(1, levels.flatten(1), 1.0).sum(1)
    doublings = (distinct - 1).frexp().exponent.view(-1, 1, 1, 1)
    count = photon_counts(levels, doublings, generator).to(image)
    return (image + scale * (count / (1 << doublings) - values / 255)).clamp(0, 1)


def photon_counts(values: Tensor, doublings: Tensor, generator: torch.Generator) -> Tensor:
    """Draw Poisson numbers of the means `values` / 255 * 2**`doublings`.

    An image has no other means than these 2304, so each has an urn of its own (Walker's alias method): 512 counts that
    are equally likely to be met, each kept with its own probability and otherwise exchanged for its alias.

    Args:
        values: integers, 0 to 255.
        doublings: integers, 0 to 8, broadcast to `values`.
        generator: of the device of `values`.

    Returns:
        int32, like `values`.
    """
    keep, alias = _urns(values.device)
    # of 53 random bits the first nine choose a count, the others whether it is kept
    draw = torch.rand(values.shape, generator=generator, device=values.device, dtype=torch.float64).mul_(_COUNTS)
    count = draw.int()
    entry = ((doublings * 256 + values) * _COUNTS + count).int().flatten()
    kept = draw.sub_(count).flatten() < keep.index_select(0, entry)
    return torch.where(kept, count.flatten(), alias.index_select(0, entry)).view(values.shape)


@tensor_cache(maxsize=None)
def _urns(device: torch.device) -> tuple[Tensor, Tensor]:
    """Urns of all means, by doublings and value: probability to keep (float64) and alias (int32), flat."""
    means = np.outer(2 ** np.arange(9), np.arange(256) / 255).reshape(-1, 1)
    urns = [_urn(row) for row in poisson.pmf(np.arange(_COUNTS), means)]
    keep, alias = (torch.from_numpy(np.concatenate(part)) for part in zip(*urns, strict=True))
    return keep.to(device, non_blocking=True), alias.to(device, torch.int32, non_blocking=True)


def _urn(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability to keep each of K equally likely outcomes, and its alias, so that `probabilities` (K,) result.

    Rare outcomes fill up their share 1/K from the frequent ones, one after the other; of a frequent one that has given
    more than its surplus the next frequent one makes good the rest.
    """
    keep, alias = probabilities * len(probabilities), np.arange(len(probabilities))
    rare, frequent = np.flatnonzero(keep < 1), np.flatnonzero(keep >= 1)
    needed, surplus = np.cumsum(1 - keep[rare]), np.cumsum(keep[frequent] - 1)
    givers = np.searchsorted(surplus, np.concatenate([[0], needed[:-1]]), side="right")
    alias[rare] = frequent[np.minimum(givers, len(frequent) - 1)]
    alias[frequent[:-1]] = frequent[1:]
    given = needed[np.minimum(np.searchsorted(needed, surplus), len(needed) - 1)]
    keep[frequent] = np.clip(1 - (given - surplus), 0, 1)
    keep[frequent[-1]] = 1
    return keep, alias
