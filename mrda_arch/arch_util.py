"""Layers shared by the networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mrda_utils.checkpoint import reasons

Network = TypeVar("Network", bound=nn.Module)

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


def is_fast_layout(x: Tensor) -> bool:
    """Whether `x` (N, C, h, w) is on the CPU in channels-last layout, where some operations of oneDNN are slow."""
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def check_upscale(upscale: int) -> None:
    """Raise ValueError unless `upscale` is 2, 3 or 4."""
    if upscale not in (2, 3, 4):
        raise ValueError(f"upscale: {upscale} is not supported, choose 2, 3 or 4")


def build(network: type[Network], hyper_parameters: dict[str, Any], state_dict: Mapping[str, Tensor]) -> Network:
    """Build a network around the tensors of `state_dict`, which it takes over as they are, without a copy.

    Raises:
        ValueError: the tensors do not fit.
    """
    try:
        with torch.device("meta"):  # whatever sizes the tensors claim, nothing is allocated
            net = network(**hyper_parameters)
        net.load_state_dict(state_dict, assign=True)
    except RuntimeError as error:
        raise ValueError(reasons(error)) from error
    return net


def size(state_dict: Mapping[str, Tensor], name: str, dimensions: int = 4) -> torch.Size:
    """Shape of a tensor.

    Raises:
        ValueError: it is missing, or has another number of dimensions.
    """
    if name not in state_dict:
        raise ValueError(f"{name} is missing")
    shape = state_dict[name].shape
    if len(shape) != dimensions or not all(shape):
        raise ValueError(f"{name} has the shape {tuple(shape)}")
    return shape


class UpscalerSizes(NamedTuple):
    """Hyper-parameters of an Upscaler except its input channels."""

    upscale: int
    num_out_ch: int
    direct: bool


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

    @staticmethod
    def sizes(state_dict: Mapping[str, Tensor], prefix: str, num_in_ch: int) -> UpscalerSizes:
        """Read the hyper-parameters off the shapes; a direct one writes as many channels as the image has.

        Args:
            state_dict: weights of the whole network.
            prefix: of the upscaler's names, with the dot.
            num_in_ch: channels of the LR image.

        Raises:
            ValueError: not the weights of an upscaler.
        """
        rows, num_feat = size(state_dict, f"{prefix}0.weight")[:2]
        later = [f"{prefix}{i}.weight" for i in (2, 4) if f"{prefix}{i}.weight" in state_dict]
        if not later:
            return UpscalerSizes(math.isqrt(rows // num_in_ch), num_in_ch, direct=True)
        growth = (rows // num_feat) ** len(later)  # of the number of pixels: each convolution but the last has a share
        return UpscalerSizes(math.isqrt(growth), size(state_dict, later[-1])[0], direct=False)
