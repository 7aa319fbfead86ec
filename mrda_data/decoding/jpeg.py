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
from mrda_data.decoding.pixels import CUT, DAMAGED, Pixels, Refused

MAX_SCANS = 100  # of a progressive JPEG, which has 10; each takes the time of the whole image
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # SOF markers
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # of them: a scan of these has no use for a byte more than it has
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no stuffed zero, no restart; libjpeg skips what is before it
_FILL = bytes(37 * i % 251 for i in range(64))  # begins with 0, as the byte before it may be 255; has no marker
_MORE = b"".join([_FILL, *(b"\xff" + bytes([restart]) + _FILL for restart in range(0xD0, 0xD8))])


class _Layout(NamedTuple):
    frame: int
    """Marker of its SOF."""
    depth: int
    height: int
    width: int
    channels: int
    segments: tuple[tuple[int, int, int], ...]
    """Marker of each before the pixels, and where its contents begin and end."""
    scans: tuple[int, ...]
    """Where the data of each scan end."""
    end: int
    """Where the first picture ends, after its EOI."""


def jpeg_layout(data: bytes) -> _Layout:
    """What the markers of the first picture say.

    Raises:
        Refused: damaged, cut short, or more than MAX_SCANS scans.
    """
    at, frame, in_scan, segments, scans = 2, None, False, [], []
    while found := _NEXT_MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if in_scan:
            scans.append(found.start())
        in_scan = marker == 0xDA
        if marker == 0xD9 and frame and scans:
            return _Layout(*frame, tuple(segments), tuple(scans), at)
        if marker in (0xD8, 0x01):  # without contents
            continue
        if marker == 0xD9 or at + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _FRAMES:
            if frame or length < 8 or at + 8 > len(data):
                break
            frame = marker, *struct.unpack_from(">BHHB", data, at + 2)
        if in_scan and len(scans) == MAX_SCANS:
            raise Refused(f"a JPEG of more than {MAX_SCANS} scans; store it anew")
        if not scans and not in_scan:
            segments.append((marker, at + 2, at + length))
        at += length
    raise Refused(DAMAGED)


def _checked_layout(data: bytes) -> _Layout:
    layout = jpeg_layout(data)
    if layout.depth != 8:
        raise Refused(f"a JPEG of {layout.depth} bits a colour; convert it to 8 or to a 16-bit PNG")
    if layout.channels not in (1, 3, 4):
        raise Refused(f"a JPEG of {layout.channels} channels; convert it to RGB")
    return layout


def whole_jpeg(data: bytes, tables: bytes | None = None) -> np.ndarray:
    """Decode a JPEG none of whose scans ends before its picture does.

    libjpeg makes gray of what is missing and says nothing that reaches us. So it is given more bytes at the end of each
    scan: of a whole picture it uses none of them, and decodes the same.

    Args:
        data: a JPEG with its EOI; one that is coded arithmetically or has no 8 bits is taken for whole.
        tables: of TIFF's tag JPEGTables.

    Raises:
        Refused: it is cut.
    """
    layout = jpeg_layout(data)
    decoded = imagecodecs.jpeg8_decode(data[: layout.end], tables=tables)
    if layout.depth == 8 and layout.frame in _HUFFMAN:
        starts, ends = (0, *layout.scans), (*layout.scans, layout.end)
        longer = _MORE.join(data[start:end] for start, end in zip(starts, ends, strict=True))
        if not np.array_equal(decoded, imagecodecs.jpeg8_decode(longer, tables=tables)):
            raise Refused(CUT)
    return decoded


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width."""
    layout = _checked_layout(data)
    return layout.height, layout.width


def jpeg_pixels(data: bytes) -> Pixels:
    """Decode the first picture; CMYK and YCCK become RGB."""
    layout = _checked_layout(data)
    first = data[: layout.end]
    try:
        colour = whole_jpeg(first)
        if layout.channels == 4:  # Pillow knows whose ink is inverted
            with Image.open(io.BytesIO(first), formats=("JPEG",)) as image:
                colour, notes = rgb_of_cmyk(np.asarray(image), image.info.get("icc_profile"))
                return Pixels(colour, notes=notes)
    except Refused:
        raise
    except Exception as error:  # imagecodecs raises a type of its own for each codec, and others
        raise Refused(DAMAGED) from error
    return Pixels(colour.reshape(*colour.shape[:2], -1))
