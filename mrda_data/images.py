"""Decoding: any usual image file becomes 8-bit RGB by one rule."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mrda_utils.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


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
        image = np.rint(image / 257.0).astype(np.uint8)
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
        ImageError: empty, truncated or no image.
    """
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
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
        ImageError: missing, or not to be read.
    """
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def read_rgb8(path: str | Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        ImageError: missing, empty, truncated or no image.
    """
    return decode_rgb8(read_file(path), path)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255
