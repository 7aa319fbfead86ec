"""An optimizer step that does nothing where a loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Step(NamedTuple):
    """Scalars on the device; the host has not waited for them."""

    skipped: Tensor
    """1 if the step was skipped (everywhere), 0 if it was taken."""
    norm: Tensor
    """Of the whole gradient, before it was clipped."""


def guarded_step(optimizer: torch.optim.Adam, losses: Iterable[Tensor], clip_grad_norm: float | None = None) -> Step:
    """Clip the gradient, step if all of it and the losses are finite on every process.

    The decision stays on the device: a fused Adam leaves weights, moments and its step count alone where `found_inf`
    is 1, and the host does not wait for the answer.

    Args:
        optimizer: fused Adam; its parameters' gradients are reduced over processes already.
        losses: scalars of this step, this process's.
        clip_grad_norm: largest norm of the whole gradient.

    Raises:
        RuntimeError: a gradient or moment in another layout than its weight; nothing has moved then.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    _check_layouts(optimizer, parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if clip_grad_norm:
        nn.utils.clip_grads_with_norm_(parameters, clip_grad_norm, norm)
    skipped = (~(norm + sum(losses)).isfinite()).float()
    if dist.is_initialized():
        dist.all_reduce(skipped, dist.ReduceOp.MAX)
    optimizer.found_inf, optimizer.grad_scale = skipped, None
    optimizer.step()
    return Step(skipped, norm)


def _check_layouts(optimizer: torch.optim.Adam, parameters: list[nn.Parameter]) -> None:
    """Fused Adam on the CPU walks through memory and ignores strides: another layout moves the wrong weights."""
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        for what, tensor in (
            ("gradient", parameter.grad),
            *((key, state.get(key)) for key in ("exp_avg", "exp_avg_sq")),
        ):
            if tensor is not None and _strides(tensor) != _strides(parameter):
                raise RuntimeError(
                    f"{what} of a weight {list(parameter.shape)}: its layout, strides {tensor.stride()}, is not the "
                    f"weight's, {parameter.stride()}"
                )


def _strides(tensor: Tensor) -> list[int]:
    """Of the sides longer than 1; those of the others mean nothing."""
    return [stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if side > 1]
