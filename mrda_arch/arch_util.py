"""Layers shared by the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.1  # of every LeakyReLU (paper Fig. 2)


def conv3x3(in_ch: int, out_ch: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with bias and padding 1."""
    return nn.Conv2d(in_ch, out_ch, 3, stride, 1)


def leaky_relu() -> nn.LeakyReLU:
    """The paper's only non-linearity."""
    return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)


def fast_layout(x: Tensor) -> Tensor:
    """`x` (N, C, h, w), channels last on the CPU: oneDNN's convolutions need not rearrange it."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def is_channels_last(x: Tensor) -> bool:
    """Whether `x` (N, C, h, w) lies channels last in memory."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def check_upscale(upscale: int) -> None:
    """Raise ValueError unless `upscale` is 2, 3 or 4."""
    if upscale not in (2, 3, 4):
        raise ValueError(f"upscale: {upscale} is not supported, choose 2, 3 or 4")


class Upscaler(nn.Sequential):
    """Linear upscaler (N, num_feat, h, w) -> (N, num_out_ch, upscale h, upscale w): convolutions and pixel shuffles.

    There is no activation, so it is linear from end to end; MLN freezes it after bicubic pretraining (paper Alg. 1).

    Args:
        num_feat: input channels.
        num_out_ch: output channels.
        upscale: 2, 3 or 4.
        direct: one convolution and one shuffle, for small networks, instead of the paper's chain.
    """

    def __init__(self, num_feat: int, num_out_ch: int, upscale: int, *, direct: bool = False) -> None:
        check_upscale(upscale)
        layers: list[nn.Module] = []
        if direct:
            layers += [conv3x3(num_feat, num_out_ch * upscale**2), nn.PixelShuffle(upscale)]
        else:
            for factor in {2: (2,), 3: (3,), 4: (2, 2)}[upscale]:
                layers += [conv3x3(num_feat, num_feat * factor**2), nn.PixelShuffle(factor)]
            layers.append(conv3x3(num_feat, num_out_ch))
        super().__init__(*layers)
