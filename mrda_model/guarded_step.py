"""An optimizer step that does nothing where a loss or gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def guarded_step(optimizer: torch.optim.Adam, losses: Iterable[Tensor], clip_grad_norm: float | None = None) -> Tensor:
    """Clip the gradient, step if all of it and the losses are finite on every process.

    The decision stays on the device: a fused Adam leaves weights, moments and its step count alone where `found_inf`
    is 1, and nobody has to wait for the answer.

    Args:
        optimizer: fused Adam; its parameters' gradients are reduced over processes already.
        losses: scalars of this step, this process's.
        clip_grad_norm: largest norm of the whole gradient.

    Returns:
        A scalar, 1 if the step was skipped (everywhere) and 0 if it was taken.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip_grad_norm or math.inf)
    skipped = (~(norm + sum(losses)).isfinite()).float()
    if dist.is_initialized():
        dist.all_reduce(skipped, dist.ReduceOp.MAX)
    optimizer.found_inf, optimizer.grad_scale = skipped, None
    optimizer.step()
    return skipped
