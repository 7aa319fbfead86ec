"""MATLAB's bicubic `imresize`, batched and differentiable, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrda_utils.tensor_cache import tensor_cache


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, support [-2, 2] (Keys 1981, Eq. 15)."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near * (x <= 1) + far * ((x > 1) & (x <= 2))


@tensor_cache(maxsize=256)
def _taps(
    in_size: int, scale: float, antialias: bool, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Source indices (taps, out) and weights (taps, out) of one axis; borders are mirrored, edge included."""
    out_size = math.ceil(in_size * scale)
    shrink = scale if antialias and scale < 1 else 1.0
    width = 4 / shrink
    centre = (torch.arange(out_size, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.ceil(centre - width / 2)
    index = first + torch.arange(math.ceil(width) + 1, dtype=torch.float64)[:, None]
    weight = cubic((centre - index) * shrink)
    weight = weight / weight.sum(0)
    used = (weight != 0).any(1)
    index, weight = index[used].long() % (2 * in_size), weight[used]
    index = torch.where(index < in_size, index, 2 * in_size - 1 - index)
    return index.to(device), weight.to(device, dtype)


def _resize_axis(x: Tensor, axis: int, scale: float, antialias: bool) -> Tensor:
    index, weight = _taps(x.shape[axis], scale, antialias, x.device, x.dtype)
    shape = [1] * x.ndim
    shape[axis] = -1
    out = x.index_select(axis, index[0]) * weight[0].view(shape)
    for i, w in zip(index[1:], weight[1:], strict=True):
        out.addcmul_(x.index_select(axis, i), w.view(shape))
    return out


def imresize(x: Tensor, scale: float, antialias: bool = True) -> Tensor:
    """Bicubic resizing with MATLAB's `imresize` kernel, sample positions and mirrored borders.

    Args:
        x: (..., H, W) floating point, any range.
        scale: output size over input size, > 0; the output is (..., ceil(H * scale), ceil(W * scale)).
        antialias: widen the kernel when shrinking, as MATLAB does by default.

    Returns:
        Resized tensor of `x`'s dtype and device. Not clipped: cubic weights overshoot at edges.
    """
    if scale == 1:
        return x
    rows, columns = x.ndim - 2, x.ndim - 1
    # columns take longer to gather than rows, so they come while the image is small
    for axis in (columns, rows) if scale > 1 else (rows, columns):
        x = _resize_axis(x, axis, scale, antialias)
    return x
