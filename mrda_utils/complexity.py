"""Size and cost of a network as SR tables give them."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")
LR_SIZE = (180, 320)
"""Height and width of the LR image of the paper's Tables II to V."""


class Complexity(NamedTuple):
    """What a method costs."""

    parameters: int
    mult_adds: int
    """On one LR image of `LR_SIZE`."""


def count_parameters(net: nn.Module) -> int:
    """Number of parameters, buffers not counted."""
    return sum(p.numel() for p in net.parameters())


def input_channels(network_opt: dict) -> tuple[int, ...]:
    """Channels of what a network is called with: the LR image and, for a teacher, MLN's feature map."""
    image = network_opt.get("num_in_ch", network_opt.get("in_chans", 3))
    cond = network_opt.get("den_in_ch", image)
    return (image,) if cond == image else (image, cond)


@torch.no_grad()
def count_mult_adds(net: nn.Module, height: int = 180, width: int = 320, channels: Sequence[int] = (3,)) -> int:
    """Multiply-adds of convolutions (dynamic ones included), linear layers and attention, without computing them.

    Args:
        net: called with a (1, channels[i], height, width) tensor for each of `channels`; left untouched.
        height: of the LR image; 180x320 is the size of the paper's Tables II and IV.
        width: of the LR image.
        channels: see `input_channels`.
    """
    # shapes are all that is needed: the meta device has them without data; a copy, since some networks keep tensors
    # of their last input
    net = deepcopy(net).to("meta")
    with FlopCounterMode(display=False) as counter:
        net(*(torch.empty(1, number, height, width, device="meta") for number in channels))
    return counter.get_total_flops() // 2


@torch.no_grad()
def runtime(
    net: nn.Module, device: torch.device, height: int, width: int, channels: Sequence[int] = (3,), runs: int = 5
) -> float:
    """Median seconds of `runs` forward passes on one LR image, after one that does not count.

    Args:
        net: on `device`, in evaluation mode.
        device: waited for before the clock is read.
        height: of the LR image.
        width: of the LR image.
        channels: see `input_channels`.
        runs: how many are timed.
    """
    inputs = [torch.rand(1, number, height, width, device=device) for number in channels]
    return median([timed(lambda: net(*inputs), device)[1] for _ in range(runs + 1)][1:])


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Result of `work()` and the seconds until `device` was done with it."""
    _wait_for(device)
    start = time.perf_counter()
    result = work()
    _wait_for(device)
    return result, time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """What a time was measured on: the GPU, or the CPU with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.is_file() else "")
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s)"
