"""TIFF: tifffile reads the samples, and what the tags declare decides what they mean."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC, PREDICTOR, SAMPLEFORMAT, TiffFile, TiffPage

from mrda_data.decoding.cmyk import rgb_of_cmyk
from mrda_data.decoding.jpeg import whole_jpeg
from mrda_data.decoding.pixels import CUT, DAMAGED, Pixels, Refused, scaled

MOST_PAGES = 16
_EOI = b"\xff\xd9"  # end of a JPEG, which not every strip has
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_THUMBNAIL = 512  # pixels; a second page up to so large is one, if it is less than half as large as the first
_UNASSOCIATED, _ASSOCIATED = 2, 1
_CHANNELS = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.YCBCR: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
_WITHOUT_PREDICTOR = {  # where the tag means nothing, as for libtiff, and a converter may have left it
    COMPRESSION.NONE,
    COMPRESSION.CCITTRLE,
    COMPRESSION.CCITT_T4,
    COMPRESSION.CCITT_T6,
    COMPRESSION.PACKBITS,
}
UPRIGHT = {  # value of the tag Orientation, of TIFF and EXIF -> how to turn (H, W, C)
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read is reported by Refused


@contextmanager
def only_page(data: bytes) -> Iterator[TiffPage]:
    """The one picture of a file.

    Raises:
        Refused: damaged, several pictures, or a layout that is not converted.
    """
    try:
        with warnings.catch_warnings(), TiffFile(io.BytesIO(data)) as file:
            warnings.simplefilter("ignore")
            yield _only_picture(file)
    except Refused:
        raise
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise Refused(DAMAGED) from error


def _only_picture(file: TiffFile) -> TiffPage:
    pages = list(islice(file.pages, MOST_PAGES + 1))
    if len(pages) > MOST_PAGES:
        raise Refused(f"a TIFF of more than {MOST_PAGES} pictures; save each in a file of its own")
    if any("DNGVersion" in page.tags or page.photometric == PHOTOMETRIC.CFA for page in pages):
        raise Refused("a raw photograph; develop it to TIFF or PNG first")
    whole = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)]
    first = whole[0] if whole else None
    whole = [page for page in whole if page is first or not _is_thumbnail(page, first)]
    stacked = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1
    if len(whole) > 1 or stacked > 1:
        raise Refused(f"a TIFF of {max(len(whole), stacked)} pictures; save each in a file of its own")
    if first is None:
        raise Refused("a TIFF of thumbnails or masks alone" if pages else DAMAGED)
    if first.imagedepth > 1:
        raise Refused(f"a TIFF volume of {first.imagedepth} layers; save one as a picture")
    return first


def _is_thumbnail(page: TiffPage, first: TiffPage) -> bool:
    sides, others = (page.imagelength, page.imagewidth), (first.imagelength, first.imagewidth)
    return max(sides) <= _THUMBNAIL and 2 * max(sides) < max(others)


def tiff_size(data: bytes) -> tuple[int, int]:
    """Height and width of the upright picture."""
    with only_page(data) as page:
        sides = page.imagelength, page.imagewidth
        return sides[::-1] if _orientation(page) >= 5 else sides


def _orientation(page: TiffPage) -> int:
    """One of UPRIGHT, or 1."""
    tag = page.tags.get("Orientation")
    return tag.value if tag is not None and isinstance(tag.value, int) and tag.value in UPRIGHT else 1


def tiff_pixels(data: bytes) -> Pixels:
    """Decode the only picture, upright: contiguous or separate planes, strips or tiles, 1 to 16 bits."""
    with only_page(data) as page:
        _check_layout(page)
        if len(page.dataoffsets) < math.prod(page.chunked):  # each that is missing would be filled in, for minutes
            raise Refused(f"{DAMAGED}; parts of the picture are missing")
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not (start and length and start + length <= len(data)):
                raise Refused(CUT)
            if page.compression == COMPRESSION.JPEG:
                whole_jpeg(data[start : start + length] + _EOI, page.jpegtables)
        if page.compression in _WITHOUT_PREDICTOR:
            page.predictor = PREDICTOR.NONE
        values = page.asarray(maxworkers=1)
        samples = page.samplesperpixel
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples > 1:
            values = np.moveaxis(values, 0, -1)
        values = values.astype(np.uint8) if values.dtype == bool else values
        values = values.reshape(page.imagelength, page.imagewidth, samples)
        decoded = _meaning(values, page)
        turn = UPRIGHT.get(_orientation(page), lambda x: x)
    return Pixels(turn(decoded.colour), None if decoded.alpha is None else turn(decoded.alpha), decoded.notes)


def _check_layout(page: TiffPage) -> None:
    """Refuse by its name what is not converted."""
    if "PhotometricInterpretation" not in page.tags:
        raise Refused("a TIFF without PhotometricInterpretation, which says what its samples mean; store it anew")
    channels = _CHANNELS.get(page.photometric)
    if channels is None:
        name = getattr(page.photometric, "name", page.photometric)
        raise Refused(f"a TIFF of colours {name}; convert it to RGB")
    if page.samplesperpixel < channels:
        raise Refused(DAMAGED)
    bits = page.bitspersample
    if not isinstance(bits, int):
        raise Refused(f"a TIFF of {' '.join(map(str, bits))} bits a sample; convert it to 8 or 16 bits")
    if page.sampleformat not in (SAMPLEFORMAT.UINT, SAMPLEFORMAT.VOID) or bits > 16:
        name = SAMPLEFORMAT(page.sampleformat).name.lower()
        raise Refused(f"a TIFF of {bits}-bit {name} samples, pixels of another type; convert the file to 8 or 16 bits")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        name = getattr(page.compression, "name", page.compression)
        raise Refused(f"a TIFF of compression {name}; store it with another, such as LZW")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.OJPEG:
        raise Refused("a TIFF of old-style JPEG (compression 6); store it with another compression, such as LZW")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression != COMPRESSION.JPEG:
        raise Refused("a TIFF of YCbCr colours that are no JPEG; convert it to RGB")
    if page.photometric == PHOTOMETRIC.SEPARATED and (ink := page.tags.get("InkSet")) is not None and ink.value != 1:
        raise Refused("a TIFF of other inks than CMYK; convert it to RGB")


def _meaning(values: np.ndarray, page: TiffPage) -> Pixels:
    """Colour and alpha of samples (H, W, S)."""
    channels, highest = _CHANNELS[page.photometric], 2**page.bitspersample - 1
    extra = [int(kind) for kind in page.extrasamples]
    extra = [0] * (values.shape[2] - channels - len(extra)) + extra[: values.shape[2] - channels]
    places = {kind: channels + i for i, kind in reversed(list(enumerate(extra)))}
    place = places.get(_UNASSOCIATED, places.get(_ASSOCIATED))
    left_out = len(extra) - (place is not None)
    notes = (f"{left_out} channel{'s' * (left_out > 1)} of unspecified meaning left out",) if left_out else ()
    colour = values[..., :channels]
    alpha = None if place is None else scaled(values[..., place : place + 1], highest)
    if page.photometric == PHOTOMETRIC.PALETTE:
        table = page.colormap if page.colormap.max() < 256 else page.colormap >> 8  # 8 bits, as libtiff takes it
        colour = np.moveaxis(table.astype(np.uint8)[:, colour[..., 0]], 0, -1)
        alpha = None if alpha is None else scaled(alpha, int(np.iinfo(alpha.dtype).max)).astype(np.uint8)
        return Pixels(colour, alpha, notes)
    colour = scaled(colour, highest)
    limit = np.iinfo(colour.dtype).max
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        colour = limit - colour
    if place is not None and extra[place - channels] == _ASSOCIATED:
        colour = _unmultiplied(colour, alpha)
    if page.photometric == PHOTOMETRIC.SEPARATED:
        colour, more = rgb_of_cmyk(colour, page.iccprofile)
        notes += more
    return Pixels(colour, alpha, notes)


def _unmultiplied(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours as they are without their alpha; 0 where that is 0."""
    limit = np.iinfo(colour.dtype).max
    values = colour.astype(np.float64) * limit / np.maximum(alpha, 1)
    return np.rint(np.minimum(values, limit)).astype(colour.dtype)
