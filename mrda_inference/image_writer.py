"""Photographs into files: by the right encoder, with their side data, whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO

import cv2
import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from mrda_data.images import ImageError
from mrda_inference.side_data import SideData, copy_with_side_data
from mrda_utils.errors import UNPRINTABLE
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
        advice = "choose png" if max(size) <= LONGEST_SIDE[".png"] else "ask for a smaller picture"
        raise ImageError(f"{path}: {max(size)} pixels, {suffix} holds {LONGEST_SIDE[suffix]} a side; {advice}")
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
        notes.append(f"its gamma or cICP has no place in {suffix} and was left out; .png keeps it")
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
        with _pipe_into(plain) as pipe:
            if pipe is not None:
                done = cv2.imwriteWithMetadata(pipe, *what)
        if pipe is None:
            done, data = cv2.imencodeWithMetadata(plain.suffix, *what)
            plain.write_bytes(data)
        reason = "the encoder refuses it"
    except cv2.error as error:
        done, reason = False, error.err
    if not done:
        raise ImageError(f"{path}: cannot be encoded ({reason})")


@contextmanager
def _pipe_into(plain: Path) -> Iterator[str | None]:
    """A name through which OpenCV writes into a file and meets no full disk, of which libpng would print a line.

    None where the system has no such name (Windows, file systems without links) or OpenCV cannot open it (no UTF-8).

    Raises:
        OSError: why the file could not be written.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, ThreadPoolExecutor(max_workers=1) as thread:
        copying = thread.submit(_copy_to_its_end, source, plain)
        link = plain.with_name(f"pipe{plain.suffix}")
        try:
            if sys.platform != "win32":
                with suppress(OSError):
                    link.symlink_to(f"/dev/fd/{writing}")
            yield str(link) if link.exists() and not UNPRINTABLE.search(str(link)) else None
        finally:
            os.close(writing)
        copying.result()


def _copy_to_its_end(source: BinaryIO, plain: Path) -> None:
    try:
        with plain.open("wb") as file:
            copyfileobj(source, file, 1 << 20)
    except OSError:
        while source.read(1 << 20):  # who writes into the pipe must not wait, nor fail
            pass
        raise


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
        raise ImageError(f"{path}: cannot be encoded (what was written cannot be read again)") from error
    if found != size:
        raise ImageError(f"{path}: cannot be encoded ({found} instead of {size} pixels)")
