"""What a photograph's file holds beside its pixels: colour profile, EXIF, XMP, resolution."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from shutil import copyfileobj
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from mrda_inference.containers import EXIF, ICC, XMP, read_parts
from mrda_inference.exif import Exif, read_exif

_THUMBNAIL = 160  # pixels a side, Exif's usual size
_LONGEST_SEGMENT = 65_533  # bytes of a JPEG segment without marker and length
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)([1-8])""")


class SideData(NamedTuple):
    """Of one file; None and () for what it lacks."""

    profile: bytes | None = None
    """ICC, of the decoded pixels; that of CMYK is spent when they are decoded."""
    exif: bytes | None = None
    """The block as TIFF, from its byte order mark on, without the thumbnail; orientation 1."""
    has_thumbnail: bool = False
    """In EXIF; a new one is made when the picture is enlarged."""
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    """Pixels an inch across and down."""
    png: tuple[tuple[bytes, bytes], ...] = ()
    """COLOUR_CHUNKS with their contents."""


def read_side_data(data: bytes) -> tuple[SideData, int, list[str]]:
    """Side data of a file that has been decoded, as they hold for its upright pixels; what is damaged is dropped.

    Args:
        data: the file.

    Returns:
        Side data; the EXIF orientation that `decode` left to be applied, 1 to 8; a line about each thing dropped.
    """
    notes: list[str] = []
    parts = read_parts(data, notes)
    exif = None if parts.exif is None else _sound_exif(parts.exif, parts.directory, notes)
    xmp, in_xmp = _upright_xmp(parts.xmp)
    dpi = _sound_dpi(parts.dpi) or _sound_dpi(exif and exif.dpi)
    orientation = (exif and exif.orientation) or in_xmp
    block = exif.upright().to_bytes() if exif else b""
    has_thumbnail = bool(exif and exif.has_thumbnail)
    side = SideData(_sound_profile(parts.profile, notes), block or None, has_thumbnail, xmp, dpi, parts.png)
    return side, 1 if parts.directory is not None else orientation, notes  # `decode` has turned a TIFF


def _sound_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Resolution, if it is one."""
    return dpi if dpi and min(dpi) >= 1 and max(dpi) <= 1e5 else None


def _sound_profile(profile: bytes | None, notes: list[str]) -> bytes | None:
    """The profile, if its own header agrees with what it is."""
    if not profile:
        return None
    if len(profile) < 132 or int.from_bytes(profile[:4], "big") != len(profile) or profile[36:40] != b"acsp":
        notes.append("its colour profile is damaged and was left out")
        return None
    return profile


def _sound_exif(data: bytes, directory: int | None, notes: list[str]) -> Exif | None:
    """What can be read of the block."""
    try:
        exif = read_exif(data, directory)
    except (ValueError, struct.error):
        notes.append("its EXIF data are damaged and were left out")
        return None
    if exif.is_damaged:
        notes.append("a part of its EXIF data is damaged and was left out")
    return exif


def _upright_xmp(xmp: bytes | None) -> tuple[bytes | None, int]:
    """XMP that says no longer that the picture is turned, or that a film follows it; how it was turned."""
    if not xmp:
        return None, 1
    if xmp.startswith((b"\xff\xfe", b"\xfe\xff")):  # TIFF allows it, PNG does not
        xmp = xmp.decode("utf-16", "replace").encode()
    xmp = xmp.rstrip(b"\0")
    found = _XMP_ORIENTATION.search(xmp)
    xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
    xmp = re.sub(rb"""((?:Motion|Micro)(?:Photo|Video)(?:=["']|>))1(?=["'<])""", rb"\g<1>0", xmp)
    return xmp, int(found[2]) if found else 1


def enlarged_side_data(side: SideData, pixels: np.ndarray) -> SideData:
    """The same for what the picture is now: EXIF and XMP name its sides where they named any, the thumbnail shows it.

    Args:
        side: of the picture before.
        pixels: (H, W, 1) gray, (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16.
    """
    exif, xmp = side.exif, side.xmp
    height, width = pixels.shape[:2]
    if exif is not None:
        exif = _enlarged_exif(read_exif(exif).resized(width, height), pixels if side.has_thumbnail else None)
    if xmp is not None:
        for name, value in ((rb"(?:exif:PixelX|tiff:ImageWid)", width), (rb"(?:exif:PixelY|tiff:ImageLen)", height)):
            ends = rb"(?:Dimension|th|gth)"
            xmp = re.sub(rb"(" + name + ends + rb"""(?:=["']|>))\d+""", rb"\g<1>%d" % value, xmp)
    return side._replace(exif=exif, xmp=xmp)


def _enlarged_exif(exif: Exif, pixels: np.ndarray | None) -> bytes:
    """The block, with the picture as thumbnail if it is given and a JPEG has room for it."""
    if pixels is None:
        return exif.to_bytes()
    factor = _THUMBNAIL / max(pixels.shape[:2])
    size = [max(1, round(factor * side)) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)[..., :3]
    small = small if small.dtype == np.uint8 else cv2.convertScaleAbs(np.ascontiguousarray(small), alpha=1 / 257)
    block = exif.to_bytes(cv2.imencode(".jpg", small)[1].tobytes())
    return block if len(EXIF + block) <= _LONGEST_SEGMENT else exif.to_bytes()


# ------------------------------------------------------------------------------------------------------------ writing
def copy_with_side_data(source: BinaryIO, target: BinaryIO, suffix: str, side: SideData, notes: list[str]) -> None:
    """Copy an encoded PNG or JPEG and put side data into it.

    Args:
        source: at its beginning; the file has no such data yet.
        target: where to write.
        suffix: .png or of a JPEG.
        side: what to put in; what the format has no place for is dropped.
        notes: takes a line about each that was dropped.
    """
    if suffix == ".png":
        target.write(source.read(33))  # signature and header
        for kind, data in _png_chunks(side):
            target.write(_chunk(kind, data))
    else:
        head = bytearray(source.read(20))  # SOI and JFIF's segment
        if side.dpi:
            head[13:18] = struct.pack(">BHH", 1, *(min(round(value), 65_535) for value in side.dpi))
        target.write(head)
        for marker, data in _jpeg_segments(side, notes):
            target.write(struct.pack(">HH", marker, len(data) + 2) + data)
    copyfileobj(source, target, 1 << 20)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_chunks(side: SideData) -> Iterator[tuple[bytes, bytes]]:
    for kind, data in side.png:
        if kind != b"sRGB" or side.profile is None:
            yield kind, data
    if side.profile is not None:
        yield b"iCCP", b"ICC profile\0\0" + zlib.compress(side.profile)
    if side.dpi:
        yield b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in side.dpi), 1)
    if side.exif is not None:
        yield b"eXIf", side.exif
    if side.xmp is not None:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + side.xmp


def _jpeg_segments(side: SideData, notes: list[str]) -> Iterator[tuple[int, bytes]]:
    for name, magic, data in (("EXIF", EXIF, side.exif), ("XMP", XMP, side.xmp)):
        if data is not None and len(magic + data) > _LONGEST_SEGMENT:
            notes.append(f"its {name} data, {len(data):,d} bytes, are too long for a JPEG and were left out")
        elif data is not None:
            yield 0xFFE1, magic + data
    if side.profile is not None:
        step = _LONGEST_SEGMENT - len(ICC) - 2
        parts = [side.profile[at : at + step] for at in range(0, len(side.profile), step)]
        if len(parts) > 255:
            notes.append(f"its colour profile, {len(side.profile):,d} bytes, is too long for a JPEG and was left out")
            return
        for number, part in enumerate(parts, 1):
            yield 0xFFE2, ICC + bytes([number, len(parts)]) + part
