"""PNG: what libpng decodes, with every kind of transparency, after a look at the chunks."""

from __future__ import annotations

import logging
import struct
from typing import NamedTuple

import imagecodecs
import numpy as np

from mrda_data.decoding.pixels import DAMAGED, Pixels, Refused

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 1_000_000
_GRAY, _RGB, _PALETTE = 0, 2, 3  # colour types without an alpha channel

logging.getLogger("imagecodecs").setLevel(logging.CRITICAL)  # libpng's warnings, which would reach the terminal


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filter: int
    interlace: int


def png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Kind of each chunk, and where its contents begin and end.

    Raises:
        Refused: the file ends before its IEND, or has more chunks than any has.
    """
    found, at = [], len(SIGNATURE)
    while len(found) < _MOST_CHUNKS:
        if at + 12 > len(data):
            raise Refused(DAMAGED)
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            raise Refused(DAMAGED)
        found.append((kind, at + 8, end))
        if kind == b"IEND":
            return found
        at = end + 4
    raise Refused(DAMAGED)


def _header(data: bytes) -> _Header:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise Refused(DAMAGED)
    return _Header(*struct.unpack_from(">IIBBBBB", data, 16))


def png_size(data: bytes) -> tuple[int, int]:
    """Height and width."""
    header = _header(data)
    return header.height, header.width


def png_pixels(data: bytes) -> Pixels:
    """Decode a still PNG; ancillary chunks do not reach libpng."""
    header, chunks = _header(data), png_chunks(data)
    for kind, start, end in chunks:
        if kind == b"acTL" and end - start == 8 and struct.unpack_from(">I", data, start)[0] > 1:
            raise Refused(f"an animated PNG of {struct.unpack_from('>I', data, start)[0]} pictures; save one of them")
    key = next((data[start:end] for kind, start, end in chunks if kind == b"tRNS"), None)
    needed = (b"IHDR", b"PLTE", b"IDAT", b"IEND", *([b"tRNS"] if header.colour == _PALETTE else []))
    parts = [data[start - 8 : end + 4] for kind, start, end in chunks if kind in needed]
    try:
        image = imagecodecs.png_decode(b"".join([SIGNATURE, *parts]))
    except Exception as error:  # imagecodecs raises a type of its own for each codec, and others
        raise Refused(DAMAGED) from error
    image = image.reshape(*image.shape[:2], -1)
    channels = image.shape[2]
    if channels in (2, 4):
        return Pixels(image[..., :-1], image[..., -1:])
    if header.colour in (_GRAY, _RGB) and key is not None:
        return Pixels(image, _keyed_alpha(image, key, header))
    return Pixels(image)


def _keyed_alpha(image: np.ndarray, key: bytes, header: _Header) -> np.ndarray:
    """Transparent where the pixels have the colour of a tRNS chunk."""
    if len(key) != 2 * image.shape[2]:
        raise Refused(DAMAGED)
    colour = np.array(struct.unpack(f">{image.shape[2]}H", key)) & (2**header.depth - 1)
    if header.depth < 8:
        colour = colour * (255 // (2**header.depth - 1))
    is_key = (image == colour.astype(image.dtype)).all(axis=2, keepdims=True)
    return np.where(is_key, 0, np.iinfo(image.dtype).max).astype(image.dtype)
