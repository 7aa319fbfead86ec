"""Photographs from files: what training's reader drops (alpha, 16 bits, orientation, side data) is kept here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrda_data.decoding.tiff import UPRIGHT
from mrda_data.images import decode, read_file
from mrda_inference.side_data import SideData, read_side_data


class Picture(NamedTuple):
    """An image as it is looked at."""

    colour: np.ndarray
    """(H, W, 3) RGB or (H, W, 1) gray, uint8 or uint16."""
    alpha: np.ndarray | None
    """(H, W, 1), as `colour`."""
    side: SideData = SideData()
    notes: tuple[str, ...] = ()
    """A line about each thing that could not be kept."""


def read_picture(path: Path) -> Picture:
    """Read an image file; palettes are looked up, gray stays gray, orientation is applied.

    Raises:
        ImageError: missing, damaged, no image, absurdly large, or of a kind that cannot be kept.
    """
    data = read_file(path)
    pixels = decode(data, path)
    side, orientation, notes = read_side_data(data.tobytes())
    turn = UPRIGHT.get(orientation, lambda x: x)
    alpha = None if pixels.alpha is None else turn(pixels.alpha)
    return Picture(turn(pixels.colour), alpha, side, (*pixels.notes, *notes))
