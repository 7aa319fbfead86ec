"""From the bytes of an image file to pixels: one decoder for each kind, recognised by its first bytes."""

from __future__ import annotations

from importlib.metadata import version

from mrda_data.decoding.jpeg import jpeg_pixels, jpeg_size
from mrda_data.decoding.others import AVIF, BMP, GIF, HEIF, WEBP
from mrda_data.decoding.pixels import DAMAGED, Decoder, Pixels, Refused
from mrda_data.decoding.png import SIGNATURE, png_pixels, png_size
from mrda_data.decoding.pnm import pnm_pixels, pnm_size
from mrda_data.decoding.tiff import tiff_pixels, tiff_size

__all__ = ["DAMAGED", "VERSIONS", "Decoder", "Pixels", "Refused", "decoder", "file_kind"]

VERSIONS = {"rules": 2} | {name: version(name) for name in ("imagecodecs", "pillow", "tifffile")}
"""Of what decodes; what was decoded by others may differ."""

_DECODERS = {
    "PNG": Decoder(png_size, png_pixels),
    "JPEG": Decoder(jpeg_size, jpeg_pixels),
    "TIFF": Decoder(tiff_size, tiff_pixels),
    "PNM": Decoder(pnm_size, pnm_pixels),
    "BMP": BMP,
    "WEBP": WEBP,
    "HEIF": HEIF,
    "AVIF": AVIF,
    "GIF": GIF,
}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNM = tuple(b"P%d" % kind for kind in range(1, 7))
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def file_kind(data: bytes) -> str:
    """PNG, JPEG, TIFF, PNM, BMP, WEBP, HEIF, AVIF or GIF, by the first bytes.

    Raises:
        Refused: none of them.
    """
    starts = {SIGNATURE: "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF8": "GIF"}
    starts |= {**dict.fromkeys(_TIFF, "TIFF"), **dict.fromkeys(_PNM, "PNM")}
    for start, kind in starts.items():
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 128), 4))}
        if brands & set(_AVIF):
            return "AVIF"
        if brands & set(_HEIF):
            return "HEIF"
    raise Refused(DAMAGED)


def decoder(data: bytes) -> Decoder:
    """What decodes these bytes of a file.

    Raises:
        Refused: nothing does.
    """
    return _DECODERS[file_kind(data)]
