"""Super-resolution of an image of any size: one representation for the whole image, feathered tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import pairwise, product
from typing import TypeVar

import torch
from torch import Tensor

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


def centre(height: int, width: int, pixels: int) -> tuple[slice, slice]:
    """Rows and columns of the middle of an image: of its shape, with about `pixels` pixels or all if it has fewer."""
    share = min(1.0, math.sqrt(pixels / (height * width)))
    rows, columns = (max(1, int(side * share)) for side in (height, width))
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
def finished_blocks(
    read: Callable[[slice, slice], Tensor],
    sides: tuple[int, int],
    idr: Tensor,
    restore: Restore,
    scale: int,
    tile: int | None,
    overlap: int,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Restore an image tile by tile; what no later tile adds to is given away at once, so memory holds a tile or two.

    While a GPU computes a tile the CPU adds up the one before, if `read` gives what lies on the GPU.

    Args:
        read: gives the rows and columns asked for of the LR image, (1, 3, h, w) float32 RGB in [0, 1].
        sides: height and width of the LR image.
        idr: its representation, which all tiles share.
        restore: computes the SR image of a tile.
        scale: of `restore`.
        tile: longest side of a tile, LR pixels; None: the whole image at once.
        overlap: LR pixels that neighbours share.

    Yields:
        SR rows and columns and their pixels, (1, 3, rows, columns) float32 on the CPU, not clipped; as many blocks as
        there are tiles, and together they are the SR image.

    Raises:
        ValueError: `tile` is not larger than `overlap`.
    """
    rows, columns = tile_grid(sides, tile, overlap)
    row_shares, column_shares = (shares(intervals, overlap, scale) for intervals in (rows, columns))

    def restored() -> Iterator[Callable[[], Tensor]]:
        for (row, row_share), (column, column_share) in product(
            zip(rows, row_shares, strict=True), zip(columns, column_shares, strict=True)
        ):
            sr = restore(read(slice(*row), slice(*column)), idr)
            yield fetched(sr * column_share.to(sr.device) * row_share[:, None].to(sr.device))

    sr_rows, sr_columns = ([(scale * a, scale * b) for a, b in intervals] for intervals in (rows, columns))
    yield from _joined(one_behind(restored()), sr_rows, sr_columns, scale * overlap)


def _joined(
    tiles: Iterable[Callable[[], Tensor]], rows: list[tuple[int, int]], columns: list[tuple[int, int]], shared: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Add up what tiles have in common, row by row; `shared` pixels of each with the next. See `finished_blocks`."""
    below = beside = torch.empty(0)  # what the row above and the tile to the left have in common with later tiles
    for ((top, bottom), (left, right)), tile in zip(product(rows, columns), tiles, strict=True):
        block = tile()
        is_first, is_lowest = left == 0, bottom == rows[-1][1]
        if top > 0:
            new = 0 if is_first else shared  # the columns before came with the tile to the left
            block[..., :shared, new:] += below[..., left + new : right]
        if not is_first:
            block[..., :shared] += beside
        end = right if right == columns[-1][1] else right - shared
        limit = bottom if is_lowest else bottom - shared
        beside = block[..., end - left :].clone()
        if not is_lowest:
            if top == left == 0:
                below = block.new_empty(*block.shape[:2], shared, columns[-1][1])
            below[..., left:end] = block[..., limit - top :, : end - left]
        yield slice(top, limit), slice(left, end), block[..., : limit - top, : end - left]


def tile_grid(
    sides: tuple[int, int], tile: int | None, overlap: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows and columns that tiles cover, see `spans`.

    Raises:
        ValueError: `tile` is not larger than `overlap`.
    """
    if tile is not None and not 0 <= overlap < tile:
        raise ValueError(f"tile: {tile} pixels, it must be larger than the overlap, {overlap}")
    rows, columns = (spans(side, tile, overlap) if tile else [(0, side)] for side in sides)
    return rows, columns


@torch.inference_mode()
def upscale(
    lq: Tensor,
    encode: Encode,
    restore: Restore,
    scale: int,
    *,
    tile: int | None = None,
    overlap: int = OVERLAP,
) -> Tensor:
    """Super-resolve one image; all tiles share the representation of the whole image.

    Args:
        lq: (1, 3, h, w) float32 RGB in [0, 1].
        encode: computes the representation, once.
        restore: computes the SR image of a tile.
        scale: of `restore`.
        tile: longest side of a tile, LR pixels, more than `overlap`; None: the whole image at once.
        overlap: LR pixels that neighbours share. Four times the distance that `restore` looks around a pixel makes
            tiles exact; far less makes them look so.

    Returns:
        (1, 3, scale h, scale w) float32 on the CPU, not clipped.

    Raises:
        ValueError: `tile` is not larger than `overlap`.
    """
    sides = tuple(lq.shape[-2:])
    tile_grid(sides, tile, overlap)
    out = torch.empty(1, 3, *(scale * side for side in sides), dtype=lq.dtype)
    idr = encode(idr_region(lq))
    for rows, columns, block in finished_blocks(
        lambda rows, columns: lq[..., rows, columns], sides, idr, restore, scale, tile, overlap
    ):
        out[..., rows, columns] = block
    return out
