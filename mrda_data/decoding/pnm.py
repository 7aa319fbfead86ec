"""PNM: the six kinds of PBM, PGM and PPM, with any maxval."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from mrda_data.decoding.pixels import DAMAGED, Pixels, Refused, scaled

_SPACE = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_NUMBER = _SPACE + rb"(\d{1,9})"
_HEADER = re.compile(rb"P([2356])" + 3 * _NUMBER + rb"(?:#[^\r\n]*)?[ \t\r\n\v\f]")
_BITMAP_HEADER = re.compile(rb"P([14])" + 2 * _NUMBER + rb"(?:#[^\r\n]*)?[ \t\r\n\v\f]")
_LONGEST_HEADER = 1 << 16  # bytes, with its comments
_LONGEST_NUMBER = 10  # digits; values go to 65535


class _Header(NamedTuple):
    kind: int
    """Of P1 to P6."""
    width: int
    height: int
    highest: int
    """Maxval; 1 of a bitmap."""
    start: int
    """Where the pixels begin."""


def _header(data: bytes) -> _Header:
    head = data[:_LONGEST_HEADER]
    found = _BITMAP_HEADER.match(head) or _HEADER.match(head)
    if not found:
        raise Refused(DAMAGED)
    numbers = [int(number) for number in found.groups()]
    header = _Header(*(numbers if len(numbers) == 4 else [*numbers, 1]), found.end())
    if not (header.width and header.height and 1 <= header.highest <= 65_535):
        raise Refused(f"a PNM of {header.height}x{header.width} pixels with maxval {header.highest}")
    return header


def pnm_size(data: bytes) -> tuple[int, int]:
    """Height and width."""
    header = _header(data)
    return header.height, header.width


def pnm_pixels(data: bytes) -> Pixels:
    """Decode one picture; values are scaled from its maxval to 8 bits (up to 255) or 16."""
    header = _header(data)
    shape = header.height, header.width, 3 if header.kind in (3, 6) else 1
    values = {1: _digits, 2: _plain, 3: _plain, 4: _bits, 5: _raw, 6: _raw}[header.kind](data, header, shape)
    if header.kind in (1, 4):
        values = 1 - values  # 1 is black
    if values.max() > header.highest:
        raise Refused(f"a PNM with values above its maxval, {header.highest}; it is damaged")
    return Pixels(scaled(values, header.highest))


def _pixel_bytes(data: bytes, header: _Header, size: int) -> memoryview:
    """So many bytes after the header, which ends with one white space; with CR LF where that leaves nothing over."""
    start = header.start
    if data[start - 1 : start + 1] == b"\r\n" and len(data) == start + 1 + size:
        start += 1
    if start + size > len(data):
        raise Refused(DAMAGED)
    _refuse_second(data[start + size : start + size + 4])
    return memoryview(data)[start : start + size]


def _raw(data: bytes, header: _Header, shape: tuple[int, int, int]) -> np.ndarray:
    kind = np.dtype("u1" if header.highest <= 255 else ">u2")
    count = int(np.prod(shape))
    values = np.frombuffer(_pixel_bytes(data, header, count * kind.itemsize), kind).reshape(shape)
    return values.astype(np.uint16) if kind.itemsize == 2 else values


def _bits(data: bytes, header: _Header, shape: tuple[int, int, int]) -> np.ndarray:
    row = (header.width + 7) // 8
    rows = np.frombuffer(_pixel_bytes(data, header, row * header.height), np.uint8).reshape(header.height, row)
    return np.unpackbits(rows, axis=1, count=header.width)[..., None]


def _plain(data: bytes, header: _Header, shape: tuple[int, int, int]) -> np.ndarray:
    words = re.sub(rb"#[^\r\n]*", b"", data[header.start :]).split()
    if max(map(len, words), default=0) > _LONGEST_NUMBER:  # each word would take as much memory as the longest
        raise Refused(DAMAGED)
    try:
        values = np.array(words, dtype="S").astype(np.int64)
    except ValueError as error:
        raise Refused(DAMAGED) from error
    if values.size != int(np.prod(shape)) or values.min() < 0 or values.max() > 65_535:
        raise Refused(DAMAGED)
    return values.reshape(shape).astype(np.uint16)


def _digits(data: bytes, header: _Header, shape: tuple[int, int, int]) -> np.ndarray:
    digits = b"".join(re.sub(rb"#[^\r\n]*", b"", data[header.start :]).split())
    values = np.frombuffer(digits, np.uint8) - ord("0")
    if values.size != int(np.prod(shape)):
        raise Refused(DAMAGED)
    return values.reshape(shape)


def _refuse_second(behind: bytes) -> None:
    if re.match(rb"[ \t\r\n]?P[1-7]\s", behind):
        raise Refused("a PNM of several pictures; save each in a file of its own")
