"""Super-resolution of an image of any size: one representation for the whole image, feathered tiles."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import pairwise, product
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from mrda_arch import MRDANet
from mrda_arch.collapse import collapse_upscaler

T = TypeVar("T")
Encode = Callable[[Tensor], Tensor]
"""LR image (1, 3, h, w) -> IDR."""
Restore = Callable[[Tensor, Tensor], Tensor]
"""LR image or part of one (1, 3, h, w), IDR -> SR (1, 3, scale h, scale w) where the LR image lies."""

OVERLAP = 32
IDR_PIXELS = 2**20


def network_functions(
    net: MRDANet, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Encode, Restore]:
    """The two halves of a student, as `upscale` takes them.

    Args:
        net: left as it is; a copy restores.
        device: where to compute.
        dtype: of the convolutions; the bicubic base of a global residual stays in float32.
    """
    device = torch.device(device)
    net = collapse_upscaler(deepcopy(net)).eval().to(device)
    cast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

    def encode(lq: Tensor) -> Tensor:
        with torch.inference_mode(), cast:
            return net.den(lq.to(device))

    def restore(lq: Tensor, idr: Tensor) -> Tensor:
        with torch.inference_mode(), cast:
            return net.rdan(lq.to(device), idr).float().to(lq.device)

    return encode, restore


def centre(height: int, width: int, pixels: int, longest: int = sys.maxsize) -> tuple[slice, slice]:
    """Rows and columns of the middle of an image: of its shape, with about `pixels` pixels or all if it has fewer.

    A side of the part has at most `longest` pixels.
    """
    share = min(1.0, math.sqrt(pixels / (height * width)))
    rows, columns = (min(max(1, int(side * share)), longest) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def idr_region(lq: Tensor) -> Tensor:
    """What the representation is computed from: the image, or of a huge one its centre, about IDR_PIXELS pixels."""
    return lq[(..., *centre(*lq.shape[-2:], IDR_PIXELS))]


def spans(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Cover [0, size) by equal intervals of at most `tile`, of which neighbours share `overlap`; all in LR pixels."""
    count = max(1, math.ceil((size - overlap) / (tile - overlap)))
    cuts = [round(i * (size - overlap) / count) for i in range(count + 1)]
    return [(start, stop + overlap) for start, stop in pairwise(cuts)]


def shares(intervals: list[tuple[int, int]], overlap: int, scale: int) -> list[Tensor]:
    """Share of each interval in the SR pixels that it covers, in [0, 1]; over all intervals they add up to 1.

    The share passes to the next interval over the middle half of the overlap: the outer quarters, where a tile's own
    border is near, count nothing.
    """
    starts = [start for start, _ in intervals]
    result = []
    for start, stop, following in zip(starts, (stop for _, stop in intervals), [*starts[1:], None], strict=True):
        position = (torch.arange(start * scale, stop * scale) + 0.5) / scale

        def rise(begin: int, position: Tensor = position) -> Tensor:
            return ((position - begin) / (overlap / 2) - 0.5).clamp(0, 1)

        share = torch.ones_like(position) if start == 0 else rise(start)
        result.append(share if following is None else share - rise(following))
    return result


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, each only after the next one has been taken: what one began goes on beside the next."""
    taken: list[T] = []
    for item in items:
        yield from taken
        taken = [item]
    yield from taken


def fetched(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the CPU; the function that is returned waits for it alone, not for later work."""
    if tensor.device.type != "cuda":  # MPS would not tell when a copy beside it has arrived
        here = tensor.cpu()
        return lambda: here
    copy = tensor.to("cpu", non_blocking=True)
    arrival = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> Tensor:
        arrival.synchronize()
        return copy

    return wait


@torch.inference_mode()
def upscale(
    lq: Tensor,
    encode: Encode,
    restore: Restore,
    scale: int,
    *,
    tile: int | None = None,
    overlap: int = OVERLAP,
    title: str | None = None,
) -> Tensor:
    """Super-resolve one image; all tiles share the representation of the whole image.

    While a GPU computes a tile the CPU adds the one before to the image, if `lq` is on the GPU.

    Args:
        lq: (1, 3, h, w) float32 RGB in [0, 1].
        encode: computes the representation, once.
        restore: computes the SR image of a tile.
        scale: of `restore`.
        tile: longest side of a tile, LR pixels, more than `overlap`; None: the whole image at once.
        overlap: LR pixels that neighbours share. Four times the distance that `restore` looks around a pixel makes
            tiles exact; far less makes them look so.
        title: of a progress bar; none without.

    Returns:
        (1, 3, scale h, scale w) float32 on the CPU, not clipped.

    Raises:
        ValueError: `tile` is not larger than `overlap`.
    """
    if tile is not None and not 0 <= overlap < tile:
        raise ValueError(f"tile: {tile} pixels, it must be larger than the overlap, {overlap}")
    idr = encode(idr_region(lq))
    sides = lq.shape[-2:]
    rows, columns = (spans(side, tile, overlap) if tile else [(0, side)] for side in sides)
    row_shares, column_shares = (
        [share.to(lq.device) for share in shares(intervals, overlap, scale)] for intervals in (rows, columns)
    )
    out = torch.zeros(1, 3, *(scale * side for side in sides), dtype=lq.dtype)
    tiles = product(zip(rows, row_shares, strict=True), zip(columns, column_shares, strict=True))
    count, quiet = len(rows) * len(columns), None if title else True

    def restored() -> Iterator[tuple[slice, slice, Callable[[], Tensor]]]:
        bar = tqdm(tiles, title, count, unit="tile", disable=quiet, leave=False)
        for (row, row_share), (column, column_share) in bar:
            sr = restore(lq[..., slice(*row), slice(*column)], idr)
            sr = fetched(sr * column_share * row_share[:, None])
            yield slice(*(scale * y for y in row)), slice(*(scale * x for x in column)), sr

    for row, column, sr in one_behind(restored()):
        out[..., row, column] += sr()
    return out
