"""Adaptation of MLN to one task, and the meta-gradient through it (paper Alg. 1 and 2).

Everything here is a pure function over `torch.func.functional_call`: MLN's own weights are read and never written, so
adapting to task A leaves no trace in task B. Only `mln.body` is adapted; the upscaler is shared by all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from mrda_arch import MLN
from mrda_utils.resize import imresize

Weights = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def super_resolve(mln: MLN, weights: Weights, lq: Tensor, lq_up: Tensor) -> Tensor:
    """SR image of MLN with `weights` in the place of its body's; `lq_up` is the bicubic upsampling of `lq`."""
    return mln.upscaler(functional_call(mln.body, weights, (lq,))) + lq_up


def adapt(mln: MLN, lq: Tensor, gt: Tensor, inner_lrs: Sequence[float], *, first_order: bool = True) -> Weights:
    """Adapt MLN to the task that (lq, gt) show: `len(inner_lrs)` steps of gradient descent on L1 (Alg. 2, lines 4-9).

    Args:
        mln: start of the adaptation; left untouched.
        lq: (N, 3, h, w) RGB in [0, 1], all degraded by one task.
        gt: (N, 3, scale h, scale w) RGB in [0, 1].
        inner_lrs: alpha of each step; empty for no adaptation.
        first_order: cut the graph after each step; otherwise the result stays a function of MLN's own weights.

    Returns:
        The body's fast weights, by name.
    """
    weights = dict(mln.body.named_parameters())
    if first_order:
        weights = _leaves(weights)
    lq_up = imresize(lq, mln.upscale)
    with torch.enable_grad():
        for inner_lr in inner_lrs:
            loss = F.l1_loss(super_resolve(mln, weights, lq, lq_up), gt)
            grads = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order)
            weights = {name: w - inner_lr * g for (name, w), g in zip(weights.items(), grads, strict=True)}
            if first_order:
                weights = _leaves(weights)
    return weights


def _leaves(weights: Weights) -> Weights:
    """The same values outside any graph, requiring grad; a frozen network's weights adapt this way too."""
    return {name: w.detach().requires_grad_() for name, w in weights.items()}


def adapted_features(mln: MLN, lq: Tensor, gt: Tensor, inner_lrs: Sequence[float]) -> Tensor:
    """D'_T: feature map (N, C', h, w) of MLN adapted to the task of (lq, gt), detached (Alg. 2, lines 4-10)."""
    weights = adapt(mln, lq, gt, inner_lrs)
    with torch.no_grad():
        return functional_call(mln.body, weights, (lq,))


class Shots(NamedTuple):
    """One task's images for the inner steps (support) or for the outer loss (query)."""

    lq: Tensor
    gt: Tensor


def meta_gradient(
    mln: MLN, support: Shots, query: Shots, inner_lrs: Sequence[float], loss_fn: Loss, *, first_order: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Query loss of one task after adaptation on its support, and the gradient that updates MLN (Alg. 1, line 14).

    Args:
        mln: its body must require grad.
        support: images that MLN adapts on.
        query: images of the outer loss.
        inner_lrs: alpha of each step.
        loss_fn: outer loss of (sr, gt).
        first_order: the plain gradient at the fast weights; otherwise the gradient through the inner steps (MAML).

    Returns:
        The detached loss, and a gradient for each of `mln.body.parameters()`.
    """
    weights = adapt(mln, *support, inner_lrs, first_order=first_order)
    loss = loss_fn(super_resolve(mln, weights, query.lq, imresize(query.lq, mln.upscale)), query.gt)
    targets = list(weights.values()) if first_order else list(mln.body.parameters())
    return loss.detach(), list(torch.autograd.grad(loss, targets))
