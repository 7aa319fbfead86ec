"""Size and cost of a network as SR tables give them."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(net: nn.Module) -> int:
    """Number of parameters, buffers not counted."""
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def count_mult_adds(net: nn.Module, height: int = 180, width: int = 320, channels: int = 3) -> int:
    """Multiply-adds of convolutions (dynamic ones included) and linear layers on one LR image, without computing it.

    Args:
        net: called with one (1, channels, height, width) tensor; left untouched.
        height: of the LR image; 180x320 is the size of the paper's Tables II and IV.
        width: of the LR image.
        channels: of the LR image.
    """
    # shapes are all that is needed: the meta device has them without data
    state = {name: torch.empty_like(t, device="meta") for name, t in [*net.named_parameters(), *net.named_buffers()]}
    with FlopCounterMode(display=False) as counter:
        torch.func.functional_call(net, state, (torch.empty(1, channels, height, width, device="meta"),))
    return counter.get_total_flops() // 2
