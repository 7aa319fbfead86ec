"""Networks that several processes train together."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def parallel(net: nn.Module, device: torch.device, **options: bool) -> DistributedDataParallel:
    """Wrap a network on `device`, the CPU too, with DistributedDataParallel; `options` are its own."""
    for buffer in net.buffers():  # DDP's broadcast refuses the strides that channels last gives to sides of 1
        buffer.data = buffer.clone(memory_format=torch.contiguous_format)
    return DistributedDataParallel(net, [device] if device.type == "cuda" else None, **options)


def reduced_once(net: nn.Module, last: bool) -> AbstractContextManager:
    """Around each micro-batch of a step: processes reduce the gradients once, with the last of them."""
    return net.no_sync() if isinstance(net, DistributedDataParallel) and not last else nullcontext()
