"""Decoding: any usual image file becomes 8-bit RGB by one rule."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mrda_utils.errors import UNPRINTABLE, UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 2**27
"""Of an image, 134 megapixels; a file of 100 kilobytes can claim many more."""
MAX_BYTES = 8 * MAX_PIXELS  # of a file: 4 channels of 16 bits, not compressed
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
_MAX_SCANS = 100  # of a progressive JPEG, which has 10; each takes the time of the whole image

# Pillow only tells the size, for which our own limit holds; what else it thinks of a file is no matter
warnings.filterwarnings("ignore", module="PIL")


class ImageError(UserError):
    """An image file that cannot be used; the message names it."""


def to_rgb8(image: np.ndarray, name: object) -> np.ndarray:
    """Bring what OpenCV decoded (gray, BGR or BGRA; 8 or 16 bits) to (H, W, 3) uint8 RGB.

    Gray is repeated over the three channels, alpha is dropped (colours are kept as stored), 16 bits are scaled by
    255 / 65535 and rounded.

    Raises:
        ImageError: any other type, such as floating point.
    """
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)  # rounds, without a copy in float64
    if image.dtype != np.uint8:
        raise ImageError(f"{name}: pixels of type {image.dtype}; convert the file to 8 or 16 bits")
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] == 1:
        return image.repeat(3, axis=2)
    if image.shape[2] not in (3, 4):
        raise ImageError(f"{name}: {image.shape[2]} channels; convert the file to RGB")
    return np.ascontiguousarray(image[..., 2::-1])


def decode(data: np.ndarray, name: object) -> np.ndarray:
    """Decode the bytes of an image file to what OpenCV makes of it: gray, BGR or BGRA; palettes are looked up.

    Args:
        data: (bytes,) uint8.
        name: what the messages call it.

    Raises:
        ImageError: empty, truncated, larger than `MAX_PIXELS` or no image.
    """
    _check_header(data, name)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise ImageError(f"{name}: cannot be decoded; it is damaged or no image")
    return image


def decode_rgb8(data: np.ndarray, name: object) -> np.ndarray:
    """Decode the bytes of an image file to (H, W, 3) uint8 RGB by the rule of `to_rgb8`; see `decode`."""
    return to_rgb8(decode(data, name), name)


def read_file(path: str | Path) -> np.ndarray:
    """Bytes of a file, (bytes,) uint8.

    Raises:
        ImageError: missing, too large, or not to be read.
    """
    try:
        size = os.stat(path).st_size
        if size > MAX_BYTES:
            raise ImageError(f"{path}: {size:,d} bytes, more than {MAX_BYTES:,d}")
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def image_size(file: str | Path | io.BytesIO, name: object) -> tuple[int, int]:
    """Height and width as the header of an image file has them; the pixels are not decoded.

    Raises:
        ImageError: no image, or larger than `MAX_PIXELS`.
    """
    return _read_header(file, name)[1:]


def _read_header(file: str | Path | io.BytesIO, name: object) -> tuple[str, int, int]:
    """Format, height and width; refuses what has more than `MAX_PIXELS`."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            kind, (width, height) = image.format, image.size
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,d} pixels; cut or reduce it") from error
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise ImageError(
            f"{name}: cannot be decoded; it is damaged or no PNG, JPEG, BMP, WebP, TIFF or PNM image of 8 or 16 bits"
        ) from error
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {height}x{width} is more than {MAX_PIXELS:,d} pixels; cut or reduce it")
    return kind, height, width


def _check_header(data: np.ndarray, name: object) -> None:
    """Refuse what would take too much memory or time, before anything is decoded: OpenCV does not ask."""
    kind, _, _ = _read_header(io.BytesIO(data), name)
    if kind in ("JPEG", "MPO") and data.tobytes().count(b"\xff\xda") > _MAX_SCANS:
        raise ImageError(f"{name}: a JPEG of more than {_MAX_SCANS} scans; store it anew")


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
