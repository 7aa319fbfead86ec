"""Photographs as files: what training's reader drops (alpha, 16 bits, orientation, colour profile) is kept here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from mrda_data.images import ImageError, decode, read_file
from mrda_inference.side_data import SideData, read_side_data

ORIENTED = {  # EXIF orientation to the way up
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
NO_COLOUR_MODES = ("LAB", "HSV", "F", "I;32")


class Picture(NamedTuple):
    """An image as it is looked at."""

    colour: np.ndarray
    """(H, W, 3) RGB or (H, W, 1) gray, uint8 or uint16."""
    alpha: np.ndarray | None
    """(H, W, 1), as `colour`."""
    side: SideData = SideData()
    notes: tuple[str, ...] = ()
    """A line about each thing that could not be kept."""


class _Header(NamedTuple):
    mode: str
    """Pillow's."""
    is_shallow_tiff: bool
    """Of at most 8 bits, which OpenCV reads wrongly: colour multiplied by alpha, gray without alpha."""
    orientation: int
    """EXIF's, 1 to 8; 1 where the decoder applies it."""
    side: SideData
    notes: list[str]


def _read_header(path: Path) -> _Header:
    """Everything but the pixels.

    Raises:
        ImageError: missing, no image, with too many pixels, or with several pictures.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                frames, is_tiff = getattr(image, "n_frames", 1), image.format == "TIFF"
                is_shallow = is_tiff and max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))) <= 8
                orientation = 1 if is_tiff else image.getexif().get(ExifTags.Base.Orientation, 1)
                notes: list[str] = []
                header = _Header(image.mode, is_shallow, orientation, read_side_data(image, notes), notes)
                is_mpo = image.format == "MPO"  # a camera's JPEG with previews behind the photograph
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: more than {Image.MAX_IMAGE_PIXELS:,d} pixels; cut it into parts") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path}: does not exist") from error
    except Exception as error:  # whatever a damaged file makes of the reader
        raise ImageError(f"{path}: cannot be decoded; it is damaged or no image") from error
    if frames > 1 and not is_mpo:
        raise ImageError(f"{path}: holds {frames} pictures; save each in a file of its own")
    if header.mode in NO_COLOUR_MODES:
        raise ImageError(f"{path}: colours of mode {header.mode}; convert the file to RGB")
    return header


def _decode_by_pillow(path: Path, mode: str) -> np.ndarray:
    """(H, W, C), C: 1 gray, 3 BGR, 4 BGRA; uint8."""
    kind = "RGBA" if "A" in mode.upper() else "L" if mode in ("1", "L") else "RGB"
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(kind))
    except Exception as error:  # whatever a damaged file makes of the decoder
        raise ImageError(f"{path}: cannot be decoded; it is damaged") from error
    return pixels[..., None] if kind == "L" else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def read_picture(path: Path) -> Picture:
    """Read an image file; palettes are looked up, gray stays gray, orientation is applied.

    Raises:
        ImageError: missing, damaged, no image, absurdly large, or of a kind that cannot be kept.
    """
    header = _read_header(path)
    image = _decode_by_pillow(path, header.mode) if header.is_shallow_tiff else decode(read_file(path), path)
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: pixels of type {image.dtype}; convert the file to 8 or 16 bits")
    image = ORIENTED.get(header.orientation, lambda x: x)(image.reshape(*image.shape[:2], -1))
    channels = image.shape[2]
    is_gray = channels == 1 or header.mode in ("LA", "La")
    return Picture(
        colour=image[..., :1] if is_gray else image[..., 2::-1],
        alpha=image[..., 3:] if channels == 4 else None,
        side=header.side,
        notes=tuple(header.notes),
    )
