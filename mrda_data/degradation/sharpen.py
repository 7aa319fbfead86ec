"""Unsharp masking of ground truth, as Real-ESRGAN trains on."""

from __future__ import annotations

import torch
from torch import Tensor

from mrda_data.degradation.kernels import mirrored
from mrda_utils.tensor_cache import tensor_cache

RADIUS, SIGMA = 25, 8.0  # pixels; OpenCV's sigma for 51 taps
WEIGHT, THRESHOLD_255 = 0.5, 10


@tensor_cache(maxsize=16)
def _smoothing(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(size, size) matrix that smooths an axis by a Gaussian of 51 taps, borders reflected."""
    offset = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    source = mirrored(size, RADIUS).unfold(0, len(taps), 1)
    matrix = torch.zeros(size, size, dtype=torch.float64).scatter_add_(1, source, (taps / taps.sum()).expand(size, -1))
    return matrix.to(device, dtype)


def _smooth(image: Tensor) -> Tensor:
    rows, columns = (_smoothing(length, image.device, image.dtype) for length in image.shape[-2:])
    return rows @ image @ columns.T


def usm_sharpen(gt: Tensor) -> Tensor:
    """Sharpen (N, 3, H, W) RGB in [0, 1] of any size where it differs from its blur by more than 10/255.

    The same as BasicSR's `USMSharp`: gt + mask * (clip(gt + 0.5 * (gt - blur)) - gt), the mask being smoothed too. Two
    products with banded matrices take the place of each 51x51 convolution.
    """
    residual = gt - _smooth(gt)
    mask = _smooth((residual.abs() * 255 > THRESHOLD_255).to(gt))
    return gt.lerp(gt.add(residual, alpha=WEIGHT).clamp_(0, 1), mask)
