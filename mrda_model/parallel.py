"""Networks that several processes train together."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def parallel(net: nn.Module, device: torch.device, **options: bool) -> DistributedDataParallel:
    """Wrap a network on `device`, the CPU too, with DistributedDataParallel; `options` are its own."""
    for buffer in net.buffers():  # DDP's broadcast refuses the strides that channels last gives to sides of 1
        buffer.data = buffer.clone(memory_format=torch.contiguous_format)
    return DistributedDataParallel(net, [device] if device.type == "cuda" else None, **options)
