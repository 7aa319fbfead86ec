"""Decoded images, from which a crop is a copy: all pixels in a row, in memory or in a mapped file."""

from __future__ import annotations

import json
import mmap
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from basicsr.utils import get_root_logger
from filelock import FileLock
from tqdm import tqdm

from mrda_data.decoding import VERSIONS
from mrda_data.images import ImageError
from mrda_data.lmdb_source import LmdbSource
from mrda_data.sources import BundledSource, FolderSource, ImageSource
from mrda_utils.distributed import environment_number
from mrda_utils.errors import UserError
from mrda_utils.files import left_over_beside, refusal_named, user_cache, written_whole
from mrda_utils.memory import available_memory

_FORMAT = 1  # of the file: pixels, index (JSON), SHA-256 of the index, its length in 8 bytes
_SHA256, _TRAILER = 32, 40  # bytes


def cached(source: ImageSource, kind: str, folder: str | None = None) -> ImageSource:
    """The same images, decoded once; `check_source` reports those that cannot be.

    Args:
        source: where the images are; the bundled photographs are in memory anyway.
        kind: `none`, `ram` (decoded at each start; loader workers share it) or `mmap` (a file that later runs and other
            processes share; one of them writes it, again when an image's file has changed).
        folder: of the file; the user's cache if None.

    Raises:
        UserError: too little memory or room on the disk, before anything is decoded, or a file that cannot be written.
    """
    if kind == "none" or isinstance(source, BundledSource):
        return source
    return _in_memory(source) if kind == "ram" else _in_file(source, Path(folder) if folder else user_cache())


class CachedSource:
    """Decoded images; `read` returns a view, which cannot be written to.

    Args:
        names: of the images.
        sizes: height and width of each.
        faults: message by name, of images that could not be decoded.
        pixels: (bytes,) uint8, all images one after the other.
    """

    def __init__(self, names: list[str], sizes: list[list[int]], faults: dict[str, str], pixels: np.ndarray) -> None:
        self.names, self._faults = names, faults
        self._sizes, self._starts, self._pixels = sizes, _starts(sizes), pixels
        self._pixels.flags.writeable = False

    def read(self, index: int) -> np.ndarray:
        """Return image `index`, (H, W, 3) uint8 RGB, without a copy."""
        if self.names[index] in self._faults:
            raise ImageError(self._faults[self.names[index]])
        return self._pixels[self._starts[index] : self._starts[index + 1]].reshape(*self._sizes[index], 3)


def _starts(sizes: list[list[int]]) -> np.ndarray:
    """First byte of each image, and the number of all bytes."""
    return np.concatenate([[0], np.cumsum([3 * height * width for height, width in sizes])])


def _header_sizes(source: FolderSource | LmdbSource) -> list[list[int]]:
    """Height and width of each image as its header has them; zero where there is none to read."""

    def size(index: int) -> list[int]:
        try:
            return list(source.size(index))
        except ImageError:
            return [0, 0]  # decoding says what is wrong

    with ThreadPoolExecutor() as pool:
        return list(pool.map(size, range(len(source.names))))


def _decode(
    source: ImageSource, sizes: list[list[int]], store: Callable[[int, np.ndarray], None]
) -> tuple[list[list[int]], dict[str, str]]:
    """Decode every image once, in parallel, and give `store` its first byte and its pixels.

    Args:
        source: where the images are.
        sizes: height and width of each, as its header has them.
        store: called in any order, by several threads.

    Returns:
        Sizes as decoded, and what is wrong with images that cannot be, by name.
    """
    starts = _starts(sizes)

    def keep(index: int) -> list[int] | str:
        try:
            image = source.read(index)
        except ImageError as error:
            return str(error)
        if image.size != starts[index + 1] - starts[index]:
            return f"{source.names[index]}: changed while it was read"
        store(int(starts[index]), image.reshape(-1))
        return list(image.shape[:2])

    with ThreadPoolExecutor() as pool:
        count = len(source.names)
        found = list(tqdm(pool.map(keep, range(count)), "Decoding images", count, disable=None, leave=False))
    faults = {name: what for name, what in zip(source.names, found, strict=True) if isinstance(what, str)}
    return [size if isinstance(what, str) else what for size, what in zip(sizes, found, strict=True)], faults


def _in_memory(source: FolderSource | LmdbSource) -> CachedSource:
    sizes = _header_sizes(source)
    size, processes = int(_starts(sizes)[-1]), environment_number("LOCAL_WORLD_SIZE", 1)  # torchrun's, on this node
    available = available_memory()
    if available is not None and size * processes > available:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise UserError(
            f"datasets.train.cache: 'ram' needs {_gigabytes(size)}{each} and {_gigabytes(available)} are available; "
            "take mmap, which the processes share, or none"
        )
    get_root_logger().info("Decoding %d images into memory, %s", len(sizes), _gigabytes(size))
    pixels = np.empty(size, np.uint8)  # one buffer, never written to after this: workers, being forks, share its pages

    def store(start: int, image: np.ndarray) -> None:
        pixels[start : start + image.size] = image

    sizes, faults = _decode(source, sizes, store)
    return CachedSource(source.names, sizes, faults, pixels)


def _in_file(source: FolderSource | LmdbSource, folder: Path) -> CachedSource:
    key = {"format": _FORMAT, "decoders": VERSIONS, "files": source.stamps()}
    path = folder / f"pixels-{sha256(str(source.folder.resolve()).encode()).hexdigest()[:16]}.bin"
    if found := _open(path, source.names, key):
        return found
    get_root_logger().info("%s is missing or outdated; it is made now, or waited for if another process does", path)
    with refusal_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with refusal_named(path), FileLock(f"{path}.lock"):
        if not _open(path, source.names, key):  # unless another process has made it while this one waited
            _make(path, source, key)
        return _open(path, source.names, key)


def _open(path: Path, names: list[str], key: dict[str, Any]) -> CachedSource | None:
    """Map a file; None if there is none, or it is incomplete or outdated."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    end = max(len(data) - _TRAILER, 0)
    digest, length = data[end : end + _SHA256], int.from_bytes(data[end + _SHA256 :], "little")
    text = data[max(end - length, 0) : end]
    if sha256(text).digest() != digest:
        return None
    index = json.loads(text)
    if index["key"] != key or _starts(index["sizes"])[-1] != end - length:
        return None
    get_root_logger().info("Decoded images come from %s", path)
    pixels = np.frombuffer(data, np.uint8, end - length)
    return CachedSource(names, index["sizes"], index["faults"], pixels)


def _make(path: Path, source: FolderSource | LmdbSource, key: dict[str, Any]) -> None:
    """Decode all images into a file; it appears when it is complete."""
    for useless in (path, *left_over_beside(path)):  # of other images, or of runs that were killed
        useless.unlink(missing_ok=True)
    sizes = _header_sizes(source)
    size, free = int(_starts(sizes)[-1]), shutil.disk_usage(path.parent).free
    if size > free:
        raise UserError(
            f"datasets.train.cache: 'mmap' needs {_gigabytes(size)} in {path.parent} and {_gigabytes(free)} are free; "
            "name another folder in datasets.train.cache_folder, or take none"
        )
    get_root_logger().info("Decoding %d images, %s", len(sizes), _gigabytes(size))
    with written_whole(path) as file:
        sizes, faults = _decode(source, sizes, partial(_write_at, file, Lock()))
        index = json.dumps({"key": key, "sizes": sizes, "faults": faults}).encode()
        file.seek(size)
        file.write(index + sha256(index).digest() + len(index).to_bytes(_TRAILER - _SHA256, "little"))


def _write_at(file: BinaryIO, lock: Lock, start: int, pixels: np.ndarray) -> None:
    with lock:  # Windows has no pwrite
        file.seek(start)
        file.write(pixels)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
