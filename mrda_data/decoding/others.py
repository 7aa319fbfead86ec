"""BMP, WebP, HEIC, AVIF: as Pillow decodes them. GIF and other formats: refused by name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError, features

from mrda_data.decoding.pixels import DAMAGED, Decoder, Pixels, Refused

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it cannot read is reported by Refused
_EXTRA = 'pip install ".[heif]"'


@contextmanager
def opened(data: bytes, kind: str) -> Iterator[Image.Image]:
    """A still picture as Pillow opens it.

    Raises:
        Refused: damaged, animated, or there is no decoder.
    """
    if kind == "HEIF":
        _register_heif()
    if kind == "BMP" and data[14:18] != b"\x0c\0\0\0" and data[21:22] > b"\x7f":
        raise Refused(f"{DAMAGED}; its width is negative")
    if kind == "AVIF" and not features.check("avif"):
        raise Refused(f"an AVIF file, which this Pillow does not read; {_EXTRA}")
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            if kind != "HEIF" and (frames := getattr(image, "n_frames", 1)) > 1:
                raise Refused(f"an animated {kind} of {frames} pictures; save one of them as PNG")
            yield image
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise  # of the caller, whose limit is lower
    except UnidentifiedImageError as error:
        raise Refused(DAMAGED) from error
    except Exception as error:  # whatever a damaged or hostile file makes of the decoder
        if "nsupported BMP" in str(error):
            raise Refused(f"a BMP of a layout that cannot be read ({error}); convert it to PNG") from error
        if kind == "BMP" and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
            raise Refused("a run-length encoded BMP that is damaged or skips pixels; convert it to PNG") from error
        raise Refused(DAMAGED) from error


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise Refused(f"a HEIC photograph, for which pillow-heif is not installed; {_EXTRA}") from error
    pillow_heif.register_heif_opener()


def _pillow(kind: str) -> Decoder:
    def size(data: bytes) -> tuple[int, int]:
        with opened(data, kind) as image:
            return image.height, image.width

    def pixels(data: bytes) -> Pixels:
        with opened(data, kind) as image:
            without_masks = kind == "BMP" and data[30:34] == b"\3\0\0\0" and not any(data[54:66])  # Pillow: alpha
            has_alpha = image.has_transparency_data and not without_masks
            depth = image.info.get("bit_depth", 8)
            is_gray = image.mode in ("1", "L", "LA")
            image = np.asarray(image.convert("RGBA" if has_alpha else "L" if is_gray else "RGB"))
        if kind == "BMP" and data[30:34] == b"\2\0\0\0":
            image = _run_lengths_of_4_bits(data)
        image = image.reshape(*image.shape[:2], -1)
        colour = image[..., :1] if is_gray else image[..., :3]
        notes = (f"its {depth} bits a colour were read as 8",) if depth > 8 else ()
        return Pixels(colour, image[..., 3:] if has_alpha else None, notes)

    return Decoder(size, pixels)


def _run_lengths_of_4_bits(data: bytes) -> np.ndarray:
    """Decode a BMP that Pillow before 13 takes for sound and misreads where a run has an odd number of bytes."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise Refused(DAMAGED)
    return image


def _refuse(data: bytes) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=("GIF",)) as image:
            frames = getattr(image, "n_frames", 1)
    except Exception as error:  # whatever a damaged file makes of the reader
        raise Refused(DAMAGED) from error
    which = f"an animated GIF of {frames} pictures" if frames > 1 else "a GIF"
    raise Refused(f"{which}, no PNG, JPEG, BMP, WebP, TIFF, PNM, HEIC or AVIF image; save it as PNG")


BMP, WEBP, HEIF, AVIF = (_pillow(kind) for kind in ("BMP", "WEBP", "HEIF", "AVIF"))
GIF = Decoder(lambda data: _refuse(data) and (0, 0), _refuse)
