"""Photographs into files: by the right encoder, with their side data, whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from shutil import copyfileobj

import cv2
import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from mrda_data.images import ImageError
from mrda_inference.side_data import SideData, copy_with_side_data
from mrda_utils.files import WriteError, written_whole

LONGEST_SIDE = {".png": 1_000_000, ".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels
SRGB_GAMMA = (45_455).to_bytes(4, "big")


def check_target(path: Path, size: tuple[int, int], dtype: np.dtype, has_alpha: bool) -> None:
    """Whether the file named can hold a picture of this height and width.

    Raises:
        ImageError: it cannot.
    """
    suffix = path.suffix.lower()
    if max(size) > LONGEST_SIDE[suffix]:
        raise ImageError(f"{path}: {max(size)} pixels, {suffix} holds {LONGEST_SIDE[suffix]} a side; choose png")
    if suffix != ".png" and dtype == np.uint16:
        raise ImageError(f"{path}: {suffix} holds no 16 bits; choose png")
    if suffix in (".jpg", ".jpeg") and has_alpha:
        raise ImageError(f"{path}: {suffix} holds no alpha; choose png or webp, or --background")


def write_pixels(pixels: np.ndarray, side: SideData, path: Path, quality: int | None = None) -> list[str]:
    """Write an image file, whole or not at all; what was written has been read again.

    Args:
        pixels: (H, W, 1) gray, (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16.
        side: what to write beside them.
        path: its suffix, one of LONGEST_SIDE, tells the format.
        quality: of .jpg (95 if None) and .webp (lossless if None), 1 to 100.

    Returns:
        A line about each thing that could not be kept.

    Raises:
        UserError: it cannot be encoded or written; nothing of it stays behind.
        WriteError: the file system refuses, so that it would refuse other files, too.
    """
    suffix, notes = path.suffix.lower(), []
    side = _fitting(side, pixels, suffix, notes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mrda-", dir=path.parent) as folder:
            plain = Path(folder) / f"a{suffix}"
            _encode(pixels, plain, side if suffix == ".webp" else SideData(), quality, path)
            _verify(plain, pixels.shape[:2], path)
            with plain.open("rb") as encoded, written_whole(path) as file:
                if suffix == ".webp":
                    copyfileobj(encoded, file, 1 << 20)
                else:
                    copy_with_side_data(encoded, file, suffix, side, notes)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error
    return notes


def _fitting(side: SideData, pixels: np.ndarray, suffix: str, notes: list[str]) -> SideData:
    """What of the side data fits the pixels and the format."""
    space = b"GRAY" if pixels.shape[2] == 1 and suffix != ".webp" else b"RGB "
    if side.profile is not None and side.profile[16:20] != space:
        notes.append(f"its colour profile is for {side.profile[16:20].decode('latin-1').strip()} and was left out")
        side = side._replace(profile=None)
    chunks = dict(side.png)
    has_other_gamma = b"cICP" in chunks or chunks.get(b"gAMA", SRGB_GAMMA) != SRGB_GAMMA
    if has_other_gamma and suffix != ".png" and side.profile is None:
        notes.append(f"its PNG gamma or cICP has no place in {suffix} and was left out; .png keeps it")
    return side


def _encode(pixels: np.ndarray, plain: Path, side: SideData, quality: int | None, path: Path) -> None:
    """Encode by OpenCV, which needs no second copy of the picture."""
    settings = {
        ".png": [],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101 if quality is None else quality],  # above 100: lossless
    }.get(plain.suffix, [cv2.IMWRITE_JPEG_QUALITY, 95 if quality is None else quality])
    if plain.suffix == ".webp" and pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    kept = {
        cv2.IMAGE_METADATA_ICCP: side.profile,
        cv2.IMAGE_METADATA_EXIF: side.exif,
        cv2.IMAGE_METADATA_XMP: side.xmp,
    }
    kinds = [kind for kind, data in kept.items() if data]
    what = pixels, kinds, [np.frombuffer(kept[kind], np.uint8) for kind in kinds], settings
    try:
        if sys.platform == "win32":  # where OpenCV opens no path that the system's code page lacks
            done, data = cv2.imencodeWithMetadata(plain.suffix, *what)
            plain.write_bytes(data)
        else:
            done = cv2.imwriteWithMetadata(str(plain), *what)
        reason = "the encoder refuses it"
    except cv2.error as error:
        done, reason = False, error.err
    if not done:
        _probe(plain.parent)
        raise ImageError(f"{path}: cannot be encoded ({reason})")


def _probe(folder: Path) -> None:
    """Whether the folder takes a file of some length; OpenCV does not tell why it could not write one.

    Raises:
        OSError: it does not.
    """
    with (folder / "probe").open("wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def _verify(plain: Path, size: tuple[int, int], path: Path) -> None:
    """Read back what was encoded: of PNG the checksums, of the others the pixels (of JPEG an eighth of them a side).

    Raises:
        ImageError: it is damaged, or another size.
    """
    opened = {
        ".png": PngImagePlugin.PngImageFile,  # not Image.open, which has a limit of its own
        ".webp": WebPImagePlugin.WebPImageFile,
    }.get(plain.suffix, JpegImagePlugin.JpegImageFile)
    try:
        with opened(plain) as image:
            found = image.size[::-1]
            if plain.suffix == ".png":
                image.verify()
            else:
                image.draft("L", (1, 1))
                image.load()
    except Exception as error:  # whatever half a file makes of the reader
        _probe(plain.parent)
        raise ImageError(f"{path}: cannot be encoded (what was written cannot be read again)") from error
    if found != size:
        raise ImageError(f"{path}: cannot be encoded ({found} instead of {size} pixels)")
