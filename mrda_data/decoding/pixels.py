"""What every decoder gives, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Refused(ValueError):  # noqa: N818  (the caller makes an ImageError of it)
    """A file that is damaged, or of a layout that cannot be converted exactly; the message says which."""


DAMAGED = "cannot be decoded; it is damaged or no PNG, JPEG, BMP, WebP, TIFF, PNM, HEIC or AVIF image of 8 or 16 bits"
CUT = f"{DAMAGED}; a part of the picture is missing"


class Pixels(NamedTuple):
    """A decoded picture."""

    colour: np.ndarray
    """(H, W, 3) RGB or (H, W, 1) gray, uint8 or uint16; not multiplied by alpha."""
    alpha: np.ndarray | None = None
    """(H, W, 1), as `colour`; 0 is transparent."""
    notes: tuple[str, ...] = ()
    """A line about each thing of the file that is not in here."""


class Decoder(NamedTuple):
    """For one kind of file."""

    size: Callable[[bytes], tuple[int, int]]
    """Bytes of a file -> height and width of what `pixels` makes of it; Refused where nothing can be made of it."""
    pixels: Callable[[bytes], Pixels]


def scaled(values: np.ndarray, highest: int) -> np.ndarray:
    """Values of 0 to `highest` to those of uint8 (from up to 8 bits) or uint16, rounded."""
    kind = np.dtype(np.uint8 if highest <= 255 else np.uint16)
    if highest == np.iinfo(kind).max:
        return values.astype(kind, copy=False)
    table = np.arange(highest + 1, dtype=np.int64) * np.iinfo(kind).max / highest
    return np.rint(table).astype(kind)[values]
