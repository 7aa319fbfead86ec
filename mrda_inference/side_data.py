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
import tifffile
from PIL import ExifTags, Image

from mrda_data.decoding import file_kind
from mrda_data.decoding.jpeg import jpeg_layout
from mrda_data.decoding.others import opened
from mrda_data.decoding.png import png_chunks

COLOUR_CHUNKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB")
"""Of PNG, how its values mean colours; kept from PNG to PNG."""
_XMP_TAG, _PROFILE_TAG = 700, 34675  # of TIFF
_THUMBNAIL = 160  # pixels a side, Exif's usual size
_LONGEST_SEGMENT = 65_533  # bytes of a JPEG segment without marker and length
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_OF_THE_FILE = {  # tags that describe how a TIFF stores its pixels, or what the other fields of SideData keep
    *range(254, 260), *(262, 263, 266, 273, 277, 278, 279, 280, 281, 284, 292, 293, 317, 318, 319, 320),
    *range(322, 348), *(512, 513, 514, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675, 37724),
}  # fmt: skip


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
    kind, notes = file_kind(data), []
    if kind in ("BMP", "PNM"):
        return SideData(), 1, notes
    try:
        found, orientation = _of_tiff(data, notes) if kind == "TIFF" else _by_pillow(data, kind, notes)
    except Exception:  # whatever damaged tags make of the reader
        return SideData(), 1, [*notes, "what its file holds beside the pixels is damaged and was left out"]
    if kind == "PNG":
        chunks = tuple((name, data[start:end]) for name, start, end in png_chunks(data) if name in COLOUR_CHUNKS)
        found = found._replace(png=chunks)
    return found, orientation, notes


def _by_pillow(data: bytes, kind: str, notes: list[str]) -> tuple[SideData, int]:
    data = data[: jpeg_layout(data).end] if kind == "JPEG" else data
    with opened(data, kind) as image:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        xmp, info, is_cmyk = image.info.get("xmp"), image.info, image.mode == "CMYK"
        has_thumbnail = bool(exif.get_ifd(ExifTags.IFD.IFD1).get(ExifTags.Base.JpegIFOffset))
    profile = None if is_cmyk else _sound_profile(info.get("icc_profile"), notes)
    dpi = _sound_dpi(info.get("dpi"))
    return SideData(profile, _sound_exif(exif, notes), has_thumbnail, _upright_xmp(xmp), dpi), orientation


def _of_tiff(data: bytes, notes: list[str]) -> tuple[SideData, int]:
    """The tags of the first page are its EXIF; `decode` has turned the picture."""
    exif = Image.Exif()
    exif.load(_EXIF + data)
    dpi = tuple(exif.get(tag) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
    unit = {2: 1, 3: 2.54}.get(exif.get(ExifTags.Base.ResolutionUnit, 2))
    dpi = _sound_dpi(tuple(float(value) * unit for value in dpi) if unit and None not in dpi else None)
    is_cmyk = exif.get(ExifTags.Base.PhotometricInterpretation) == tifffile.PHOTOMETRIC.SEPARATED
    profile = None if is_cmyk else _sound_profile(exif.get(_PROFILE_TAG), notes)
    return SideData(profile, _sound_exif(exif, notes), False, _upright_xmp(exif.get(_XMP_TAG)), dpi), 1


def _sound_dpi(dpi: object) -> tuple[float, float] | None:
    """Resolution, if it is one."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if min(across, down) >= 1 and max(across, down) <= 1e5 else None


def _sound_profile(profile: bytes | None, notes: list[str]) -> bytes | None:
    """The profile, if its own header agrees with what it is."""
    if not profile:
        return None
    if len(profile) < 132 or int.from_bytes(profile[:4], "big") != len(profile) or profile[36:40] != b"acsp":
        notes.append("its colour profile is damaged and was left out")
        return None
    return profile


def _sound_exif(found: Image.Exif, notes: list[str]) -> bytes | None:
    """EXIF with orientation 1 and without thumbnail; None if there is none."""
    try:
        kept = Image.Exif()
        for tag, value in found.items():
            if tag not in _OF_THE_FILE:
                kept[tag] = value
        for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if tag in kept and (part := dict(found.get_ifd(tag))):
                kept[tag] = part
        if not kept:
            return None
        if ExifTags.Base.Orientation in kept:
            kept[ExifTags.Base.Orientation] = 1
        return kept.tobytes().removeprefix(_EXIF)
    except Exception:  # whatever damaged tags make of the reader and the writer
        notes.append("its EXIF data are damaged and were left out")
        return None


def _upright_xmp(xmp: bytes | str | None) -> bytes | None:
    """XMP that says no longer that the picture is turned, or that a film follows it."""
    if not xmp:
        return None
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    xmp = re.sub(rb"""(tiff:Orientation(?:=["']|>))[2-8]""", rb"\g<1>1", xmp)
    return re.sub(rb"""((?:Motion|Micro)(?:Photo|Video)(?:=["']|>))1(?=["'<])""", rb"\g<1>0", xmp)


def enlarged_side_data(side: SideData, pixels: np.ndarray) -> SideData:
    """The same for what the picture is now: EXIF and XMP name its sides where they named any, the thumbnail shows it.

    Args:
        side: of the picture before.
        pixels: (H, W, 1) gray, (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16.
    """
    exif, xmp = side.exif, side.xmp
    height, width = pixels.shape[:2]
    if exif is not None:
        block = Image.Exif()
        block.load(_EXIF + exif)
        parts = {tag: dict(block.get_ifd(tag)) for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) if tag in block}
        for tag, part in parts.items():
            block[tag] = part
        details = parts.get(ExifTags.IFD.Exif, {})
        for tag, value in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
            if tag in details:
                details[tag] = value
        exif = block.tobytes().removeprefix(_EXIF)
        exif = _with_thumbnail(exif, pixels) if side.has_thumbnail else exif
    if xmp is not None:
        for name, value in ((rb"(?:exif:PixelX|tiff:ImageWid)", width), (rb"(?:exif:PixelY|tiff:ImageLen)", height)):
            ends = rb"(?:Dimension|th|gth)"
            xmp = re.sub(rb"(" + name + ends + rb"""(?:=["']|>))\d+""", rb"\g<1>%d" % value, xmp)
    return side._replace(exif=exif, xmp=xmp)


def _with_thumbnail(exif: bytes, pixels: np.ndarray) -> bytes:
    """The block with a directory more, which has the picture as a small JPEG; without it where a JPEG has no room."""
    factor = _THUMBNAIL / max(pixels.shape[:2])
    size = [max(1, round(factor * side)) for side in pixels.shape[1::-1]]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)[..., :3]
    small = small if small.dtype == np.uint8 else cv2.convertScaleAbs(np.ascontiguousarray(small), alpha=1 / 257)
    jpeg = cv2.imencode(".jpg", small)[1].tobytes()
    order = "<" if exif.startswith(b"II") else ">"
    (first,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, first)
    start = len(exif) + len(exif) % 2
    directory = struct.pack(f"{order}H", 3)
    directory += struct.pack(f"{order}HHIHxx", ExifTags.Base.Compression, 3, 1, 6)  # JPEG
    directory += struct.pack(f"{order}HHII", ExifTags.Base.JpegIFOffset, 4, 1, start + 42)
    directory += struct.pack(f"{order}HHII", ExifTags.Base.JpegIFByteCount, 4, 1, len(jpeg))
    block = bytearray(exif.ljust(start, b"\0") + directory + bytes(4) + jpeg)
    struct.pack_into(f"{order}I", block, first + 2 + 12 * count, start)
    return bytes(block) if len(_EXIF + block) <= _LONGEST_SEGMENT else exif


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
    for name, magic, data in (("EXIF", _EXIF, side.exif), ("XMP", _XMP, side.xmp)):
        if data is not None and len(magic + data) > _LONGEST_SEGMENT:
            notes.append(f"its {name} data, {len(data):,d} bytes, are too long for a JPEG and were left out")
        elif data is not None:
            yield 0xFFE1, magic + data
    if side.profile is not None:
        step = _LONGEST_SEGMENT - len(_ICC) - 2
        parts = [side.profile[at : at + step] for at in range(0, len(side.profile), step)]
        if len(parts) > 255:
            notes.append(f"its colour profile, {len(side.profile):,d} bytes, is too long for a JPEG and was left out")
            return
        for number, part in enumerate(parts, 1):
            yield 0xFFE2, _ICC + bytes([number, len(parts)]) + part
