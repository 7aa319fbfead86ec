"""Size and cost of a network as SR tables give them."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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


def input_shapes(network_opt: dict, height: int, width: int) -> list[tuple[int, ...]]:
    """Shapes of what a network is called with: an LR image and, where it needs one, MLN's feature map or the kernel."""
    image = network_opt.get("num_in_ch", network_opt.get("in_chans", 3))
    lq = (1, image, height, width)
    if network_opt["type"] == "MRDAKernelNet":
        return [lq, (1, *[network_opt["kernel_size"]] * 2)]
    cond = network_opt.get("den_in_ch", image)
    return [lq] if cond == image else [lq, (1, cond, height, width)]


@torch.no_grad()
def count_mult_adds(net: nn.Module, shapes: Sequence[tuple[int, ...]] = ((1, 3, *LR_SIZE),)) -> int:
    """Multiply-adds of convolutions (dynamic ones included), linear layers and attention, without computing them.

    Args:
        net: called with a tensor of each of `shapes`; left untouched.
        shapes: see `input_shapes`; an RGB image of 180x320, the size of the paper's Tables II and IV, by default.
    """
    # shapes are all that is needed: the meta device has them without data; a copy, since some networks keep tensors
    # of their last input
    net = deepcopy(net).to("meta")
    ecbsr = type(net).__name__ == "ECBSR"  # makes its kernels as it runs, on the default device
    with FlopCounterMode(display=False) as counter, torch.device("meta") if ecbsr else nullcontext():
        net(*(torch.empty(shape, device="meta") for shape in shapes))
    return counter.get_total_flops() // 2


@torch.no_grad()
def runtime(work: Callable[[], object], device: torch.device, runs: int = 5) -> float:
    """Median seconds of `runs` calls, after one that does not count; the clock waits for `device`."""
    return median([timed(work, device)[1] for _ in range(runs + 1)][1:])


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
    elif device.type == "mps":
        torch.mps.synchronize()


def device_name(device: torch.device) -> str:
    """What a time was measured on: the GPU, or the CPU with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{platform.processor() or platform.machine()}, MPS"
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.is_file() else "")
    name = model[1] if model else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s)"
