"""JPEG: only the first picture of the file; what follows it is ignored."""

from __future__ import annotations

import io
import re
import struct
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL import Image

from mrda_data.decoding.cmyk import rgb_of_cmyk
from mrda_data.decoding.pixels import DAMAGED, Pixels, Refused

MAX_SCANS = 100  # of a progressive JPEG, which has 10; each takes the time of the whole image
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # SOF markers
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # in entropy-coded data: no stuffed zero, no restart
_SEGMENT = re.compile(rb"\xff+([^\xff\x00])")


class _Layout(NamedTuple):
    height: int
    width: int
    channels: int
    end: int
    """Where the first picture ends, after its EOI."""


def jpeg_layout(data: bytes) -> _Layout:
    """What the markers of the first picture say.

    Raises:
        Refused: damaged, cut short, more than MAX_SCANS scans, or a kind that has no 8-bit colours.
    """
    at, scans, frame = 2, 0, None
    while True:
        found = _SEGMENT.match(data, at) if not scans else _NEXT_MARKER.search(data, at)
        if not found:
            raise Refused(DAMAGED)
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # without contents
            continue
        if at + 2 > len(data):
            raise Refused(DAMAGED)
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _FRAMES:
            if frame or length < 8 or at + 8 > len(data):
                raise Refused(DAMAGED)
            frame = struct.unpack_from(">BHHB", data, at + 2)
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise Refused(f"a JPEG of more than {MAX_SCANS} scans; store it anew")
        at += length
    if frame is None or not scans:
        raise Refused(DAMAGED)
    depth, height, width, channels = frame
    if depth != 8:
        raise Refused(f"a JPEG of {depth} bits a colour; convert it to 8 or to a 16-bit PNG")
    if channels not in (1, 3, 4):
        raise Refused(f"a JPEG of {channels} channels; convert it to RGB")
    return _Layout(height, width, channels, at)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width."""
    return jpeg_layout(data)[:2]


def jpeg_pixels(data: bytes) -> Pixels:
    """Decode the first picture; CMYK and YCCK become RGB."""
    layout = jpeg_layout(data)
    first = data[: layout.end]
    try:
        if layout.channels == 4:
            with Image.open(io.BytesIO(first), formats=("JPEG",)) as image:
                colour, notes = rgb_of_cmyk(np.asarray(image), image.info.get("icc_profile"))
                return Pixels(colour, notes=notes)
        image = imagecodecs.jpeg8_decode(first)
    except Exception as error:  # imagecodecs raises a type of its own for each codec, and others
        raise Refused(DAMAGED) from error
    return Pixels(image.reshape(*image.shape[:2], -1))
