"""Images in an LMDB of BasicSR's layout: a folder NAME.lmdb with data.mdb, lock.mdb and meta_info.txt.

A line of meta_info.txt reads `name.png (height,width,channels) compression`; the key is the name without its suffix,
the value an encoded image file.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
from tqdm import tqdm

from mrda_data.images import ImageError, check_name, decode_rgb8, image_size, read_file
from mrda_utils.errors import UNPRINTABLE, UserError
from mrda_utils.files import left_over_beside, temporary_beside

FIRST_MAP_SIZE = 1 << 30  # bytes; doubled whenever it is full
_IMAGES_A_COMMIT = 256
_MAX_META_BYTES = 1 << 28  # some four million names
_META_LINE = re.compile(r"(?P<name>.+) \(\d+,\d+,\d+\) \d+")


class LmdbSource:
    """All images of an LMDB, sorted by their name; read from disk each time, by any number of threads and processes.

    Raises:
        ImageError: no LMDB of this name, a part of it missing, or a damaged list of names.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for path in (self.folder, self.folder / "data.mdb", self.folder / "meta_info.txt"):
            if not (path.is_dir() if path == self.folder else path.is_file()):
                raise ImageError(f"{folder}: no LMDB of images, {path} does not exist")
        self.names = _read_meta_info(self.folder / "meta_info.txt")
        self._data = os.path.realpath(self.folder / "data.mdb")

    def encoded(self, index: int) -> np.ndarray:
        """Bytes of the file of image `index`, (bytes,) uint8."""
        key = _key(self.names[index])
        try:
            with _environment(self._data).begin() as transaction:
                value = transaction.get(key.encode())
        except lmdb.Error as error:
            raise ImageError(f"{self.folder}: key {key!r} cannot be read ({error})") from error
        if value is None:
            raise ImageError(f"{self.folder}: key {key!r} of meta_info.txt is not in data.mdb")
        return np.frombuffer(value, np.uint8)

    def read(self, index: int) -> np.ndarray:
        """Decode image `index`."""
        return decode_rgb8(self.encoded(index), f"{self.folder}: key {_key(self.names[index])!r}")

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of image `index`, see `image_size`."""
        return image_size(self.encoded(index), f"{self.folder}: key {_key(self.names[index])!r}")

    def stamps(self) -> dict[str, list[int]]:
        """Size (bytes) and time (ns) of data.mdb, for every image."""
        status = os.stat(self._data)
        return {name: [status.st_size, status.st_mtime_ns] for name in self.names}


def _key(name: str) -> str:
    return os.path.splitext(name)[0]


def _read_meta_info(path: Path) -> list[str]:
    size = path.stat().st_size
    if size > _MAX_META_BYTES:
        raise ImageError(f"{path}: {size:,d} bytes, more than {_MAX_META_BYTES:,d}")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: cannot be read ({error})") from error
    names = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _META_LINE.fullmatch(line.rstrip("\r"))
        if not match:
            raise ImageError(f"{path} line {number}: expected 'name.png (height,width,channels) n', found {line!r}")
        check_name(match["name"], f"{path} line {number}")
        if _key(match["name"]) in names:
            raise ImageError(f"{path} line {number}: key {_key(match['name'])!r} appears twice")
        names[_key(match["name"])] = match["name"]
    if not names:
        raise ImageError(f"{path}: no image in it")
    return sorted(names.values())


_environments: dict[str, tuple[int, lmdb.Environment]] = {}
_lock = threading.Lock()


def _environment(data: str) -> lmdb.Environment:
    """The environment of a data.mdb, opened when a process first reads it: lmdb refuses to open one twice."""
    with _lock:
        pid, environment = _environments.get(data, (None, None))
        if pid == os.getpid():
            return environment
        if environment is not None:
            environment.close()  # inherited by fork, which LMDB forbids to use; the parent's stays open
        environment = lmdb.open(data, subdir=False, readonly=True, lock=False, readahead=False)
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if os.stat(data).st_size < needed:  # reading beyond the end of the file would kill the process
            environment.close()
            raise lmdb.CorruptedError(f"data.mdb is truncated: {os.stat(data).st_size} of {needed} bytes")
        _environments[data] = (os.getpid(), environment)
        return environment


def write_lmdb(folder: Path, names: list[str], target: Path, workers: int | None = None) -> None:
    """Pack image files, byte for byte, into the LMDB `target`, which appears when it is complete.

    Each file is decoded to see that it can be.

    Args:
        folder: where the files are.
        names: their paths below it, in POSIX form.
        target: does not exist yet.
        workers: threads that read and decode; None for as many as the machine has cores.

    Raises:
        ImageError: a file that cannot be decoded, two names with one key, or a name that the layout cannot store.
        UserError: the file system refused; nothing half-written stays behind.
    """
    _check_keys(folder, names)

    for left_over in left_over_beside(target):
        shutil.rmtree(left_over)
    temporary = temporary_beside(target)
    try:
        with lmdb.open(str(temporary), map_size=FIRST_MAP_SIZE) as environment:
            meta_info = _fill(environment, folder, names, target.name, workers)
        with (temporary / "meta_info.txt").open("w", encoding="utf-8") as file:
            file.writelines(meta_info)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | lmdb.Error):
            raise UserError(f"{target}: cannot be written ({error})") from error
        raise


def _check_keys(folder: Path, names: list[str]) -> None:
    """Check that an LMDB can store these names, each under a key of its own."""
    keys: dict[str, str] = {}
    for name in names:
        if UNPRINTABLE.search(name) or len(_key(name).encode()) > 511:
            raise ImageError(
                f"{name!r}: a name that no LMDB can store; rename it (no control characters, at most 511 bytes)"
            )
        other = keys.setdefault(_key(name), name)
        if other != name:
            raise ImageError(f"{folder}: {other} and {name} have the same key; rename one of them")


def _fill(environment: lmdb.Environment, folder: Path, names: list[str], title: str, workers: int | None) -> list[str]:
    """Read, decode and store all files; return the lines of meta_info.txt."""

    def load(name: str) -> tuple[bytes, str]:
        data = read_file(folder / name)
        height, width, channels = decode_rgb8(data, folder / name).shape
        return data.tobytes(), f"{name} ({height},{width},{channels}) 0\n"

    meta_info = []
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(names), desc=title, unit="image", disable=None) as bar:
        for start in range(0, len(names), _IMAGES_A_COMMIT):
            chunk = names[start : start + _IMAGES_A_COMMIT]
            loaded = list(pool.map(load, chunk))
            _put(environment, [(_key(name).encode(), data) for name, (data, _) in zip(chunk, loaded, strict=True)])
            meta_info += [line for _, line in loaded]
            bar.update(len(chunk))
    return meta_info


def _put(environment: lmdb.Environment, items: list[tuple[bytes, bytes]]) -> None:
    """Store all items, in a larger map if need be."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in items:
                    transaction.put(key, value)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
