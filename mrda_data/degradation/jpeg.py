"""JPEG compression of a batch on any device, by BasicSR's DiffJPEG."""

from __future__ import annotations

from copy import deepcopy

import torch
from basicsr.utils import DiffJPEG
from torch import Tensor

from mrda_utils.tensor_cache import tensor_cache


@tensor_cache(maxsize=128)
def _jpeger(device: torch.device) -> DiffJPEG:
    # a copy: the quantisation tables of all DiffJPEG objects are the same trainable parameters
    return deepcopy(DiffJPEG(differentiable=False)).requires_grad_(False).to(device)


def jpeg(image: Tensor, quality: float) -> Tensor:
    """Compress and decompress (N, 3, H, W) RGB, clipped to [0, 1], as Real-ESRGAN does; computed in float32.

    BasicSR's tables are those of libjpeg with both axes exchanged; see `libjpeg`.

    Args:
        image: of any size; DiffJPEG pads it by black to multiples of 16.
        quality: in (0, 100), as in libjpeg.
    """
    # quality as a number: DiffJPEG overwrites a tensor
    return _jpeger(image.device)(image.float().clamp(0, 1), float(quality)).to(image).contiguous()


def libjpeg(image: Tensor, quality: float) -> Tensor:
    """Likewise, but with the quantisation tables the way round that programs have them."""
    return jpeg(image.transpose(2, 3), quality).transpose(2, 3).contiguous()
