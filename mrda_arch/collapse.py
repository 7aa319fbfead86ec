"""A frozen upscaler as one small convolution.

The upscaler has no activation (see `Upscaler`), and linear layers in a row are one linear layer: the idea behind
SESR's collapsible blocks (Bhardwaj et al., MLSys 2022) and RepVGG (Ding et al., CVPR 2021). Here the composition of
conv - shuffle - conv - shuffle - conv maps a 5x5 neighbourhood of the feature map to the `upscale` x `upscale` pixels
of one LR position: one 5x5 convolution to 3 upscale^2 channels, followed by a pixel shuffle.

That is exact wherever the zero padding between the upscaler's convolutions is out of reach. In the outermost ring of LR
positions the map is linear too, but another one: four edges and four corners, each with a kernel of its own.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrda_arch.arch_util import Upscaler, fast_layout
from mrda_arch.mrda_net_arch import MRDANet

SIZE = 5  # of the kernels: the first convolution reaches 1 LR position, the others together 1 more
MIN_SIDE = 3  # of the feature map: an edge's kernel looks 3 positions deep
_PLACES = (0, SIZE // 2, SIZE - 1)  # first, inner and last position of an axis of length SIZE


class CollapsedUpscaler(nn.Module):
    """A frozen upscaler's map, exact up to rounding, border included.

    Args:
        upscaler: its weights must not change any more.
        upscale: its factor.
    """

    @torch.inference_mode(False)  # `collapsed` may keep it for a training
    def __init__(self, upscaler: Upscaler, upscale: int) -> None:
        super().__init__()
        self.upscale = upscale
        self.upscaler = deepcopy(upscaler)  # for tiny maps; a copy, since the cache must not keep its key alive
        example = next(upscaler.parameters())
        for name, tensor in zip(("kernels", "biases"), _probe(upscaler, upscale), strict=True):
            self.register_buffer(name, tensor.to(example), persistent=False)
        self._made: dict[tuple[torch.dtype, torch.device], list[_StripConvolution]] = {}

    def forward(self, feat: Tensor) -> Tensor:
        """(N, C', h, w) -> (N, 3, upscale h, upscale w); differentiable in `feat`."""
        return F.pixel_shuffle(self.unshuffled(feat), self.upscale)

    def unshuffled(self, feat: Tensor) -> Tensor:
        """The output before its pixel shuffle, (N, C', h, w) -> (N, 3 upscale^2, h, w)."""
        if min(feat.shape[-2:]) < MIN_SIDE:
            return F.pixel_unshuffle(self.upscaler(feat), self.upscale)
        return _Affine.apply(feat, self, True)

    def affine(self, feat: Tensor, bias: bool) -> Tensor:
        """`unshuffled`, or without the biases its linear part: the inner kernel everywhere, the borders' on top."""
        whole, *borders = self._convolutions(feat)
        out = F.conv2d(feat, whole.weight, whole.bias if bias else None, padding=whole.padding)
        for border in borders:
            strip = F.conv2d(feat[border.source], border.weight, border.bias if bias else None, padding=border.padding)
            out[border.target].add_(strip)
        return out

    def adjoint(self, grad: Tensor) -> Tensor:
        """Gradient by the feature map, (N, 3 upscale^2, h, w) -> (N, C', h, w)."""
        whole, *borders = self._convolutions(grad)
        out = F.conv_transpose2d(grad, whole.weight, padding=whole.padding)
        for border in borders:
            out[border.source].add_(F.conv_transpose2d(grad[border.target], border.weight, padding=border.padding))
        return out

    def _convolutions(self, like: Tensor) -> list[_StripConvolution]:
        """Convolution of the whole map and corrections of its eight borders, in a tensor's type; made once for each."""
        if (key := (like.dtype, like.device)) not in self._made:
            self._made[key] = self._make_convolutions(like)
        return self._made[key]

    @torch.inference_mode(False)  # may serve a training later
    @torch.no_grad()
    def _make_convolutions(self, like: Tensor) -> list[_StripConvolution]:
        inner, inner_bias = self.kernels[1, 1], self.biases[1, 1]
        everywhere = (..., slice(None), slice(None))
        convolutions = [_StripConvolution(inner, inner_bias, (SIZE // 2, SIZE // 2), everywhere, everywhere)]
        taps = (slice(2, SIZE), slice(None), slice(SIZE - 2))  # a border's kernel lacks what is outside
        source = (slice(MIN_SIDE), slice(None), slice(-MIN_SIDE, None))
        target = (slice(1), slice(1, -1), slice(-1, None))
        for row, column in ((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)):
            weight = (self.kernels[row, column] - inner)[:, :, taps[row], taps[column]]
            padding = (int(row == 1), int(column == 1))
            places = ((..., side[row], side[column]) for side in (source, target))
            convolutions.append(_StripConvolution(weight, self.biases[row, column] - inner_bias, padding, *places))
        return [p._replace(weight=fast_layout(p.weight.to(like)), bias=p.bias.to(like)) for p in convolutions]


class _StripConvolution(NamedTuple):
    """A convolution from a strip of the feature map to places of the output."""

    weight: Tensor
    bias: Tensor
    padding: tuple[int, int]
    source: tuple
    """Index of the strip."""
    target: tuple
    """Index of the places."""


class _Affine(torch.autograd.Function):
    """The collapsed map: for the gradient of each strip, autograd would fill and add a whole feature map."""

    @staticmethod
    def forward(ctx: Any, feat: Tensor, upscaler: CollapsedUpscaler, bias: bool) -> Tensor:
        ctx.upscaler = upscaler
        return upscaler.affine(feat, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Adjoint.apply(grad, ctx.upscaler), None, None


class _Adjoint(torch.autograd.Function):
    """Its gradient, which is linear again: second-order meta-learning differentiates it."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, upscaler: CollapsedUpscaler) -> Tensor:
        ctx.upscaler = upscaler
        return upscaler.adjoint(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Affine.apply(grad, ctx.upscaler, False), None


@torch.enable_grad()
def _probe(upscaler: Upscaler, upscale: int) -> tuple[Tensor, Tensor]:
    """Kernels (3, 3, 3 upscale^2, C', 5, 5) and biases (3, 3, 3 upscale^2) of the nine places, in float64.

    A kernel's row is the gradient of one output by the input: all of them come from one backward pass over a batch.
    """
    weights = {name: p.detach().cpu().double() for name, p in upscaler.named_parameters()}  # MPS has no float64
    num_feat = next(iter(weights.values())).shape[1]

    def unshuffled(feat: Tensor) -> Tensor:
        return F.pixel_unshuffle(torch.func.functional_call(upscaler, weights, (feat,)), upscale)

    zero = torch.zeros(1, num_feat, SIZE, SIZE, dtype=torch.float64)
    origin = unshuffled(zero.requires_grad_())
    channels = origin.shape[1]
    kernels = zero.new_zeros(3, 3, channels, num_feat, SIZE, SIZE)
    for i, y in enumerate(_PLACES):
        for j, x in enumerate(_PLACES):
            seeds = torch.zeros(channels, *origin.shape, dtype=torch.float64)
            seeds[range(channels), 0, range(channels), y, x] = 1
            (grad,) = torch.autograd.grad(origin, zero, seeds, retain_graph=True, is_grads_batched=True)
            kernels[i, j] = grad[:, 0]
    places = torch.tensor(_PLACES)
    biases = origin.detach()[0][:, places][:, :, places].permute(1, 2, 0)
    # a place's kernel is centred on it: shift the borders' so that all have the position itself in the middle
    for i, y in enumerate(_PLACES):
        for j, x in enumerate(_PLACES):
            kernels[i, j] = kernels[i, j].roll((SIZE // 2 - y, SIZE // 2 - x), (2, 3))
    return kernels, biases


_cache: WeakKeyDictionary[Upscaler, tuple[tuple, CollapsedUpscaler]] = WeakKeyDictionary()


def collapsed(upscaler: Upscaler, upscale: int) -> CollapsedUpscaler:
    """The collapsed form of a frozen upscaler; built once, and again when its weights have changed."""
    key = tuple((p.data_ptr(), p._version, p.device, p.dtype) for p in upscaler.parameters())
    if upscaler not in _cache or _cache[upscaler][0] != key:
        _cache[upscaler] = (key, CollapsedUpscaler(upscaler, upscale))
    return _cache[upscaler][1]


def collapse_upscaler(net: MRDANet) -> MRDANet:
    """Collapse the upscaler of a network that only restores, in place; at paper size it is a quarter of the work.

    A direct tail is one convolution already and stays.
    """
    if len(net.rdan.upscaler) > 2:
        net.rdan.upscaler = CollapsedUpscaler(net.rdan.upscaler, net.upscale)
    return net
