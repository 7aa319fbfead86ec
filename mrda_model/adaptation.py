"""Adaptation of MLN to one task, and the meta-gradient through it (paper Alg. 1 and 2).

Everything here is a pure function over `torch.func.functional_call`: MLN's own weights are read and never written, so
adapting to task A leaves no trace in task B. Only `mln.body` is adapted; the upscaler is shared by all tasks, but in
the ablation of paper Table VI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mrda_arch import MLN
from mrda_arch.arch_util import fast_layout
from mrda_arch.collapse import collapsed
from mrda_model.precision import autocast
from mrda_utils.resize import imresize

Weights = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Adaptation(NamedTuple):
    """How MLN adapts; an option file's `adaptation` section."""

    inner_lrs: Sequence[float]
    """alpha of each step of gradient descent; empty for no adaptation."""
    adapt_per: Literal["task", "image"] = "task"
    """One set of fast weights for all images, or one an image."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the convolutions; losses and updates keep the weights' own."""
    freeze_upscaler: bool = True
    """False adapts the upscaler as well, on the plain path (paper Table VI)."""
    collapse: bool = True
    """False keeps to the plain path, the reference of the collapsed one (see `collapse.py`)."""


class TaskBatch(NamedTuple):
    """Images of one task."""

    lq: Tensor
    gt: Tensor


def stack(tasks: Sequence[TaskBatch]) -> TaskBatch:
    """Images of several tasks as one batch."""
    return TaskBatch(torch.cat([task.lq for task in tasks]), torch.cat([task.gt for task in tasks]))


def _start(mln: MLN, adaptation: Adaptation) -> Weights:
    """MLN's own weights that adapt: the body's by name and, unless it is frozen, the upscaler's under `upscaler.`."""
    upscaler = {} if adaptation.freeze_upscaler else dict(mln.upscaler.named_parameters(prefix="upscaler"))
    return {**dict(mln.body.named_parameters()), **upscaler}


def _call(part: nn.Module, weights: Weights, x: Tensor, adaptation: Adaptation) -> Tensor:
    """Output of a part of MLN with `weights` in the place of its own."""
    if adaptation.adapt_per == "image":
        return vmap(lambda own, image: functional_call(part, own, (image[None],))[0])(weights, x)
    return functional_call(part, weights, (x,))


def _body(mln: MLN, weights: Weights, lq: Tensor, adaptation: Adaptation) -> Tensor:
    """Feature map (N, C', h, w) of the body with `weights`."""
    if adaptation.collapse and lq.device.type == "cpu":  # part of the fast path: oneDNN likes this layout better
        lq = lq.contiguous(memory_format=torch.channels_last)
    own = {name: w for name, w in weights.items() if not name.startswith("upscaler.")}
    with autocast(lq.device, adaptation.dtype):
        return _call(mln.body, own, lq, adaptation)


def _collapses(mln: MLN, adaptation: Adaptation) -> bool:
    """Whether the upscaler is one convolution: it is frozen, and the plain path is not asked for."""
    frozen = adaptation.freeze_upscaler and not any(p.requires_grad for p in mln.upscaler.parameters())
    return adaptation.collapse and frozen


def _upscale(mln: MLN, weights: Weights, feat: Tensor, adaptation: Adaptation) -> Tensor:
    """MLN's upscaler layer by layer; where it collapses, all but the pixel shuffle: (N, 3 scale^2, h, w)."""
    own = {name.removeprefix("upscaler."): w for name, w in weights.items() if name.startswith("upscaler.")}
    with autocast(feat.device, adaptation.dtype):
        if own:
            return _call(mln.upscaler, own, feat, adaptation)
        if _collapses(mln, adaptation):
            return collapsed(mln.upscaler, mln.upscale).unshuffled(feat)
        return mln.upscaler(feat)


def super_resolve(mln: MLN, weights: Weights, lq: Tensor, lq_up: Tensor, adaptation: Adaptation) -> Tensor:
    """SR image of MLN with `weights` in the place of its own; `lq_up` is the bicubic upsampling of `lq`."""
    residual = _upscale(mln, weights, _body(mln, weights, lq, adaptation), adaptation)
    return (F.pixel_shuffle(residual, mln.upscale) if _collapses(mln, adaptation) else residual) + lq_up


def adapt(mln: MLN, lq: Tensor, gt: Tensor, adaptation: Adaptation, *, first_order: bool = True) -> Weights:
    """Adapt MLN to the task that (lq, gt) show by gradient descent on L1 (Alg. 2, lines 4-9).

    Args:
        mln: start of the adaptation; left untouched.
        lq: (N, 3, h, w) RGB in [0, 1]; degraded by one task unless each image adapts for itself.
        gt: (N, 3, scale h, scale w) RGB in [0, 1].
        adaptation: steps, precision and what shares weights.
        first_order: cut the graph after each step; otherwise the result stays a function of MLN's own weights.

    Returns:
        The fast weights, named as in `_start`; with `adapt_per: image` each has a leading axis of N.
    """
    weights = _start(mln, adaptation)
    if adaptation.adapt_per == "image":
        weights = {name: w.expand(len(lq), *w.shape) for name, w in weights.items()}
    elif adaptation.collapse:  # gradients come in the activations' layout, and the updates stay in it
        weights = {name: fast_layout(w) if w.ndim == 4 else w for name, w in weights.items()}
    if first_order:
        weights = _leaves(weights)
    residual = gt - imresize(lq, mln.upscale)  # what the upscaler has to give
    if _collapses(mln, adaptation):  # a mean does not depend on the order of pixels: none of the steps shuffles them
        residual = fast_layout(F.pixel_unshuffle(residual, mln.upscale))
    # images that adapt for themselves have a mean each; in the sum over images, each weight sees its own image's
    pixels = (gt[0] if adaptation.adapt_per == "image" else gt).numel()
    with torch.enable_grad():
        for inner_lr in adaptation.inner_lrs:
            out = _upscale(mln, weights, _body(mln, weights, lq, adaptation), adaptation)
            sign = torch.sign(out.detach() - residual).to(out.dtype)  # the gradient of L1, summed
            grads = torch.autograd.grad(out, list(weights.values()), sign, create_graph=not first_order)
            rate = inner_lr / pixels
            weights = {name: w.sub(g, alpha=rate) for (name, w), g in zip(weights.items(), grads, strict=True)}
            if first_order:
                weights = _leaves(weights)
    return weights


def _leaves(weights: Weights) -> Weights:
    """The same values outside any graph, requiring grad; a frozen network's weights adapt this way too."""
    return {name: w.detach().requires_grad_() for name, w in weights.items()}


def adapted_features(mln: MLN, lq: Tensor, gt: Tensor, adaptation: Adaptation) -> Tensor:
    """D'_T: feature map (N, C', h, w) of MLN adapted to the task of (lq, gt), detached (Alg. 2, lines 4-10)."""
    weights = adapt(mln, lq, gt, adaptation)
    with torch.no_grad():
        return _body(mln, weights, lq, adaptation).to(lq.dtype)


def adaptation_errors(mln: MLN, lq: Tensor, gt: Tensor, adaptation: Adaptation) -> tuple[Tensor, Tensor]:
    """L1 error of MLN's SR images before and after its steps on (lq, gt): scalars, which adapting is to lower."""
    lq_up, errors = imresize(lq, mln.upscale), []
    for steps in (adaptation._replace(inner_lrs=()), adaptation):
        weights = adapt(mln, lq, gt, steps)
        with torch.no_grad():
            errors.append(F.l1_loss(super_resolve(mln, weights, lq, lq_up, adaptation).to(gt), gt))
    return errors[0], errors[1]


def meta_gradient(
    mln: MLN, support: TaskBatch, query: TaskBatch, adaptation: Adaptation, loss_fn: Loss, *, first_order: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """Query loss of one task after adaptation on its support, and the gradient that updates MLN (Alg. 1, line 14).

    Args:
        mln: its body must require grad.
        support: images that MLN adapts on.
        query: images of the outer loss.
        adaptation: see `adapt`; `adapt_per` must be task.
        loss_fn: outer loss of (sr, gt).
        first_order: the plain gradient at the fast weights; otherwise the gradient through the inner steps (MAML).

    Returns:
        The detached loss, and a gradient for each of the parameters that adapt, the body's first.
    """
    weights = adapt(mln, *support, adaptation, first_order=first_order)
    sr = super_resolve(mln, weights, query.lq, imresize(query.lq, mln.upscale), adaptation)
    loss = loss_fn(sr, query.gt)
    targets = list(weights.values()) if first_order else list(_start(mln, adaptation).values())
    return loss.detach(), list(torch.autograd.grad(loss, targets))
