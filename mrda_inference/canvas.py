"""Pictures that are larger than memory likes: in a file where need be, resized strip by strip."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mrda_data.images import ImageError
from mrda_utils.memory import available_memory

MEMORY_SHARE = 4  # a picture takes at most this part of the free memory
STRIP = 256  # rows of output that are resized at once
_REACH = {Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}  # pixels around one that count


def new_canvas(shape: tuple[int, ...], dtype: np.dtype, folder: Path) -> np.ndarray:
    """Room for a picture, in memory or, if that is short, in a file without a name that goes with the array.

    Args:
        shape: of the array.
        dtype: of the array.
        folder: where the file is; it exists.

    Raises:
        ImageError: neither has the room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    available = available_memory()
    if available is None or size <= available // MEMORY_SHARE:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # writing to a mapped file on a full disk kills the process
            else:
                file.truncate(size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise ImageError(
            f"{folder}: the picture takes {size / 1e9:.1f} GB, of memory {available / 1e9:.1f} GB are free and here "
            f"there is no room for it ({error.strerror})"
        ) from error


def resize_into(target: np.ndarray, source: np.ndarray, resampling: Image.Resampling) -> None:
    """Resize a picture strip by strip, by Pillow's antialiased filters, clipped and rounded.

    Args:
        target: (H, W, C) uint8 or uint16; takes the result.
        source: (h, w, C) of the same type.
        resampling: BICUBIC or LANCZOS.
    """
    if target.shape == source.shape:
        target[...] = source
        return
    highest = np.iinfo(target.dtype).max
    for rows, needed, box in _strips(target.shape[:2], source.shape[:2], _REACH[resampling]):
        for channel in range(target.shape[2]):
            strip = Image.fromarray(source[needed, :, channel].astype(np.float32))
            strip = np.asarray(strip.resize((target.shape[1], rows.stop - rows.start), resampling, box))
            target[rows, :, channel] = np.rint(strip.clip(0, highest))


def _strips(
    target: tuple[int, int], source: tuple[int, int], reach: int
) -> Iterator[tuple[slice, slice, tuple[float, float, float, float]]]:
    """Target rows, the source rows they are made of, and the part of those that they show: left, top, right, bottom."""
    step = source[0] / target[0]
    margin = math.ceil(reach * max(1, step)) + 1
    for start in range(0, target[0], STRIP):
        stop = min(start + STRIP, target[0])
        first, last = max(0, math.floor(start * step) - margin), min(source[0], math.ceil(stop * step) + margin)
        yield slice(start, stop), slice(first, last), (0, start * step - first, source[1], stop * step - first)
