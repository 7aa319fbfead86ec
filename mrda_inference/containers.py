"""Where each kind of file has its colour profile, EXIF, XMP and resolution; the pixels are not looked at."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import tifffile

from mrda_data.decoding import file_kind
from mrda_data.decoding.jpeg import jpeg_layout
from mrda_data.decoding.others import opened
from mrda_data.decoding.png import png_chunks
from mrda_data.decoding.tiff import only_page

EXIF, XMP, ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
"""How the contents of a JPEG segment begin."""
COLOUR_CHUNKS = {b"cICP": 4, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}
"""Of PNG, how its values mean colours, and their lengths; kept from PNG to PNG."""
_LARGEST = 1 << 26  # bytes that a compressed part may have
_INCH = 0.0254  # metres


class Parts(NamedTuple):
    """What a file has, unread; None for what it lacks."""

    profile: bytes | None = None
    """ICC, of RGB or gray."""
    exif: bytes | None = None
    """From its byte order mark on; of a TIFF the whole file."""
    directory: int | None = None
    """Of a TIFF, where the tags of its picture are."""
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    """Pixels an inch across and down."""
    png: tuple[tuple[bytes, bytes], ...] = ()
    """COLOUR_CHUNKS with their contents."""


def read_parts(data: bytes, notes: list[str]) -> Parts:
    """Take a file apart that has been decoded; `notes` takes a line about each part that is damaged."""
    reader = _READERS.get(file_kind(data))
    return reader(data, notes) if reader else Parts()


def _of_jpeg(data: bytes, notes: list[str]) -> Parts:
    layout, parts, profile = jpeg_layout(data), Parts(), {}
    for marker, start, end in layout.segments:
        body = data[start:end]
        if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, *density = struct.unpack_from(">BHH", body, 7)
            factor = {1: 1, 2: 100 * _INCH}.get(unit)
            parts = parts._replace(dpi=tuple(factor * value for value in density) if factor else None)
        elif marker == 0xE1 and body.startswith(EXIF) and parts.exif is None:
            parts = parts._replace(exif=body[len(EXIF) :])
        elif marker == 0xE1 and body.startswith(XMP) and parts.xmp is None:
            parts = parts._replace(xmp=body[len(XMP) :])
        elif marker == 0xE2 and body.startswith(ICC) and len(body) > len(ICC) + 2:
            profile.setdefault(body[len(ICC)], body[len(ICC) + 2 :])
    if profile and layout.channels != 4:  # that of CMYK is used up by the decoder
        parts = parts._replace(profile=b"".join(profile[number] for number in sorted(profile)))
    return parts


def _of_png(data: bytes, notes: list[str]) -> Parts:
    parts, colours = Parts(), []
    for kind, start, end in png_chunks(data):
        body = data[start:end]
        if kind not in _PNG_PARTS and kind not in COLOUR_CHUNKS:
            continue
        is_whole = zlib.crc32(kind + body) == int.from_bytes(data[end : end + 4], "big")
        if not is_whole or len(body) != COLOUR_CHUNKS.get(kind, len(body)):
            notes.append(f"its PNG chunk {kind.decode()} is damaged and was left out")
        elif kind in COLOUR_CHUNKS:
            colours.append((kind, body))
        else:
            try:
                parts = _PNG_PARTS[kind](parts, body)
            except (ValueError, IndexError, struct.error, zlib.error):
                notes.append(f"its PNG chunk {kind.decode()} is damaged and was left out")
    return parts._replace(png=tuple(colours))


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    whole = inflater.decompress(data, _LARGEST)
    if not inflater.eof:
        raise ValueError("cut short, or larger than any")
    return whole


def _profile_chunk(parts: Parts, body: bytes) -> Parts:
    return parts._replace(profile=_inflated(body[body.index(b"\0") + 2 :]))


def _exif_chunk(parts: Parts, body: bytes) -> Parts:
    return parts._replace(exif=body.removeprefix(EXIF))


def _resolution_chunk(parts: Parts, body: bytes) -> Parts:
    across, down, unit = struct.unpack(">IIB", body)
    return parts._replace(dpi=(across * _INCH, down * _INCH) if unit == 1 else None)


def _text_chunk(parts: Parts, body: bytes) -> Parts:
    keyword, rest = body.split(b"\0", 1)
    if keyword != b"XML:com.adobe.xmp":
        return parts
    text = rest[2:].split(b"\0", 2)[2]
    return parts._replace(xmp=_inflated(text) if rest[0] else text)


def _compressed_text_chunk(parts: Parts, body: bytes) -> Parts:
    keyword, rest = body.split(b"\0", 1)
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1") or parts.exif is not None:
        return parts
    digits = re.sub(rb"\s", b"", _inflated(rest[1:]).lstrip(b"\n").split(b"\n", 2)[2])  # after a name and a length
    return parts._replace(exif=bytes.fromhex(digits.decode("ascii")).removeprefix(EXIF))


_PNG_PARTS: dict[bytes, Callable[[Parts, bytes], Parts]] = {
    b"iCCP": _profile_chunk,
    b"eXIf": _exif_chunk,
    b"pHYs": _resolution_chunk,
    b"iTXt": _text_chunk,
    b"zTXt": _compressed_text_chunk,
}


def _of_webp(data: bytes, notes: list[str]) -> Parts:
    found, at = {}, 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"ICCP", b"EXIF", b"XMP "):
            found.setdefault(data[at : at + 4], data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    exif = found.get(b"EXIF")
    return Parts(found.get(b"ICCP"), exif.removeprefix(EXIF) if exif else None, xmp=found.get(b"XMP "))


def _of_tiff(data: bytes, notes: list[str]) -> Parts:
    with only_page(data) as page:
        is_cmyk = page.photometric == tifffile.PHOTOMETRIC.SEPARATED
        xmp = page.tags.get("XMP")
        xmp = None if xmp is None else xmp.value
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        return Parts(None if is_cmyk else page.iccprofile, data, page.offset, bytes(xmp) if xmp else None)


def _of_bmp(data: bytes, notes: list[str]) -> Parts:
    if len(data) < 46 or int.from_bytes(data[14:18], "little") < 40:
        return Parts()
    across, down = struct.unpack_from("<ii", data, 38)
    return Parts(dpi=(across * _INCH, down * _INCH))


def _by_pillow(kind: str) -> Callable[[bytes, list[str]], Parts]:
    def read(data: bytes, notes: list[str]) -> Parts:
        with opened(data, kind) as image:
            info = image.info
            exif, xmp, profile = info.get("exif"), info.get("xmp"), info.get("icc_profile")
        colours = () if profile else _video_colours(data)
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        return Parts(profile, exif.removeprefix(EXIF) if exif else None, xmp=xmp, png=colours)

    return read


def _video_colours(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The `colr` box of HEIC and AVIF as PNG's cICP, unless it says what all take for granted (BT.709 or sRGB)."""
    at = data.find(b"colrnclx")
    if at == -1 or at + 15 > len(data):
        return ()
    primaries, curve = struct.unpack_from(">HH", data, at + 8)
    if primaries in (0, 1, 2) and curve in (0, 1, 2, 6, 13):
        return ()
    return ((b"cICP", bytes([primaries & 255, curve & 255, 0, 1])),)


_READERS: dict[str, Callable[[bytes, list[str]], Parts]] = {
    "JPEG": _of_jpeg,
    "PNG": _of_png,
    "WEBP": _of_webp,
    "TIFF": _of_tiff,
    "BMP": _of_bmp,
    "HEIF": _by_pillow("HEIF"),
    "AVIF": _by_pillow("AVIF"),
}
