"""Decoding: any usual image file becomes 8-bit RGB by one rule."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mrda_data.decoding import DAMAGED, Pixels, Refused, decoder
from mrda_utils.errors import UNPRINTABLE, UserError

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".avif"),
)
MAX_PIXELS = 2**27
"""Of an image, 134 megapixels; a file of 100 kilobytes can claim many more."""
MAX_BYTES = 8 * MAX_PIXELS  # of a file: 4 channels of 16 bits, not compressed
PNG_HEADER = 33  # bytes that have the size

# Pillow only reads the size, which our own limit checks; its other complaints do not matter
warnings.filterwarnings("ignore", module="PIL")


class ImageError(UserError):
    """An image file that cannot be used; the message names it."""


def to_rgb8(colour: np.ndarray) -> np.ndarray:
    """Bring decoded colours, (H, W, 3) RGB or (H, W, 1) gray of uint8 or uint16, to (H, W, 3) uint8 RGB.

    Gray is repeated over the three channels, 16 bits are scaled by 255 / 65535 and rounded.
    """
    if colour.dtype == np.uint16:
        colour = cv2.convertScaleAbs(np.ascontiguousarray(colour), alpha=1 / 257)  # rounds, without a copy in float64
        colour = colour.reshape(*colour.shape[:2], -1)
    return colour.repeat(3, axis=2) if colour.shape[2] == 1 else np.require(colour, requirements=["C", "W"])


def decode(data: np.ndarray, name: object) -> Pixels:
    """Decode the bytes of an image file; palettes are looked up, TIFF's and HEIC's own orientation is applied.

    Args:
        data: (bytes,) uint8.
        name: what the messages call it.

    Raises:
        ImageError: empty, truncated, larger than `MAX_PIXELS`, no image, or a layout that is not converted exactly.
    """
    encoded = data.tobytes()
    with _refusal_named(name):
        read = decoder(encoded)
        size = _checked(read.size(encoded), name)
        pixels = read.pixels(encoded)
        if pixels.colour.shape[:2] != size:
            raise Refused(DAMAGED)
    return pixels


def decode_rgb8(data: np.ndarray, name: object) -> np.ndarray:
    """Decode the bytes of an image file to (H, W, 3) uint8 RGB as `to_rgb8` does, without alpha; see `decode`."""
    return to_rgb8(decode(data, name).colour)


def read_file(path: str | Path, longest: int = -1) -> np.ndarray:
    """Bytes of a file, (bytes,) uint8; of a long one the first `longest`, if that is not -1.

    Raises:
        ImageError: missing, too large, or not to be read; a folder, pipe or device.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read for ever
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
            raise ImageError(f"{path}: {what}, no image file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{path}: {status.st_size:,d} bytes, more than {MAX_BYTES:,d}")
        return np.fromfile(path, np.uint8, longest)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def image_size(data: np.ndarray, name: object) -> tuple[int, int]:
    """Height and width as the header of an image file has them; the pixels are not decoded.

    Args:
        data: (bytes,) uint8; of a PNG the first `PNG_HEADER` of them are enough.
        name: what the messages call it.

    Raises:
        ImageError: no image, or larger than `MAX_PIXELS`.
    """
    encoded = data.tobytes()
    with _refusal_named(name):
        return _checked(decoder(encoded).size(encoded), name)


def file_image_size(path: Path) -> tuple[int, int]:
    """Likewise, of a file; of a PNG no more than its header is read."""
    head = read_file(path, PNG_HEADER)
    return image_size(head if bytes(head[:4]) == b"\x89PNG" else read_file(path), path)


@contextmanager
def _refusal_named(name: object) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,d} pixels; cut or reduce it") from error


def _checked(size: tuple[int, int], name: object) -> tuple[int, int]:
    """Height and width in a header, if they are within the limit."""
    height, width = size
    if type(height) is not int or type(width) is not int:  # a TIFF can give several numbers
        raise Refused(DAMAGED)
    if height * width > MAX_PIXELS:
        raise ImageError(f"{name}: {height}x{width} is more than {MAX_PIXELS:,d} pixels; cut or reduce it")
    if height < 1 or width < 1:
        raise Refused(DAMAGED)
    return height, width


def check_name(name: str, where: object) -> str:
    """Return an image's name, POSIX and relative, if files and tables made of it stay where they belong.

    The rule is the same everywhere, so that what is made on one system is safe on another.

    Raises:
        ImageError: a name that is absolute or has `..`, by the rules of POSIX or of Windows, where drives and
            backslashes count; control characters, line ends, or bytes that are no UTF-8.
    """
    paths = PurePosixPath(name), PureWindowsPath(name)
    outside = any(path.anchor or ".." in path.parts or not path.name for path in paths)
    if outside or UNPRINTABLE.search(name):
        raise ImageError(
            f"{where}: {name!r} is no name for an image here; rename it (no control characters, no .., no drive)"
        )
    return name


def read_rgb8(path: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: missing, empty, truncated or no image.
    """
    return decode_rgb8(read_file(path), path)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def centre(image: Tensor, max_side: int | None) -> Tensor:
    """Central part (3, h, w) of an image (3, H, W), its sides `max_side` at most; all of it if that is None."""
    height, width = (min(side, max_side or side) for side in image.shape[1:])
    top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
    return image[:, top : top + height, left : left + width]
