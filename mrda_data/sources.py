"""Where ground-truth images come from: a folder, an LMDB, or the photographs that come with the dependencies."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import numpy as np
from annotated_types import Ge
from pydantic import TypeAdapter
from tqdm import tqdm

from mrda_data.decoding import VERSIONS
from mrda_data.folders import list_images
from mrda_data.images import ImageError, check_name, decode_rgb8, file_image_size, read_file, read_rgb8
from mrda_data.lmdb_source import LmdbSource
from mrda_utils.errors import UserError
from mrda_utils.files import WriteError, user_cache, write_text

T = TypeVar("T")

BUNDLED = {
    "train": (
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/motorcycle_right.png"),
        ("sklearn", "datasets/images/china.jpg"),
    ),
    "test": (
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/rocket.jpg"),
        ("sklearn", "datasets/images/flower.jpg"),
    ),
}
"""The photographs of scikit-image and scikit-learn; both views of the motorcycle scene are on one side."""


class ImageSource(Protocol):
    """A fixed, ordered list of RGB images."""

    names: list[str]

    def read(self, index: int) -> np.ndarray:
        """Return image `index` as (H, W, 3) uint8 RGB."""


class FolderSource:
    """All images below a folder, sorted by their path; read from disk each time. `left_out` reports other files.

    Raises:
        ImageError: no folder of this name, no image in it, or one whose name is none (see `check_name`).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        listing = list_images(folder)
        self.names, self.left_out = [check_name(name, folder) for name in listing.names], listing.left_out()

    def encoded(self, index: int) -> np.ndarray:
        """Bytes of the file of image `index`, (bytes,) uint8."""
        return read_file(self.folder / self.names[index])

    def read(self, index: int) -> np.ndarray:
        """Decode image `index`."""
        return decode_rgb8(self.encoded(index), self.folder / self.names[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of image `index`, see `image_size`."""
        return file_image_size(self.folder / self.names[index])

    def stamps(self) -> dict[str, list[int]]:
        """Size (bytes) and time (ns) of every image's file."""
        status = {name: (self.folder / name).stat() for name in self.names}
        return {name: [found.st_size, found.st_mtime_ns] for name, found in status.items()}


class BundledSource:
    """One side, `train` or `test`, of the photographs that scikit-image and scikit-learn ship; kept in memory."""

    def __init__(self, split: str) -> None:
        self.names, self._images = [], []
        for package, name in BUNDLED[split]:
            root = importlib.util.find_spec(package).submodule_search_locations[0]
            self.names.append(Path(name).name)
            self._images.append(read_rgb8(Path(root) / name))

    def read(self, index: int) -> np.ndarray:
        """Return image `index`."""
        return self._images[index]


class JoinedSource:
    """The images of several sources, one after the other.

    Args:
        parts: the sources, each with its folder, which goes before the names of its images.
    """

    def __init__(self, parts: dict[str, ImageSource]) -> None:
        self.names = [f"{folder}/{name}" for folder, part in parts.items() for name in part.names]
        self._images = [(part, index) for part in parts.values() for index in range(len(part.names))]

    def read(self, index: int) -> np.ndarray:
        """Return image `index`."""
        part, own = self._images[index]
        return part.read(own)


def open_source(dataroot_gt: str) -> ImageSource:
    """Open `bundled:train`, `bundled:test`, an LMDB (a folder whose name ends in .lmdb) or a folder of image files."""
    if dataroot_gt.startswith("bundled:"):
        return BundledSource(dataroot_gt.removeprefix("bundled:"))
    return LmdbSource(dataroot_gt) if Path(dataroot_gt).suffix == ".lmdb" else FolderSource(dataroot_gt)


def first_images(names: list[T], opt: dict) -> list[T]:
    """The first `max_images` of a data set's images, all without that option.

    Raises:
        ImageError: it is below 1.
    """
    most = opt.get("max_images")
    if most is not None and most < 1:
        raise ImageError(f"{opt['name']}: max_images {most}: must be at least 1")
    return names[:most]


def check_source(
    source: ImageSource, min_size: int, names: Iterable[str] | None = None, left_out: list[str] | None = None
) -> dict[int, tuple[int, int]]:
    """Decode every image (or those of these `names`) once; require at least `min_size` pixels of height and width.

    What was found is remembered in the user's cache by path, size and time, so a folder or LMDB is decoded once.

    Args:
        source: where the images are.
        min_size: pixels.
        names: look at these only.
        left_out: takes a line for each image that cannot be used, as long as one remains; None for none to be missing.

    Returns:
        Index to (height, width) of the usable images, ascending.

    Raises:
        ImageError: names every offender, up to ten.
    """
    wanted = set(source.names if names is None else names)
    usable, offenders = {}, []
    for index, size in _sizes(source, [i for i, name in enumerate(source.names) if name in wanted]).items():
        if isinstance(size, str):
            offenders.append(size)
        elif min(size) < min_size:
            needed = f"at least {min_size}x{min_size} are needed"
            offenders.append(f"{source.names[index]}: {size[0]}x{size[1]} pixels, {needed}")
        else:
            usable[index] = size
    if offenders and (left_out is None or not usable):
        raise ImageError("\n  ".join(["images that cannot be used:", *first_ten(offenders)]))
    if left_out is not None:
        left_out += offenders
    return usable


def _sizes(source: ImageSource, indices: list[int]) -> dict[int, tuple[int, int] | str]:
    """Index to (height, width), or to the reason why there is no image."""
    cache = _ScanCache(source) if isinstance(source, FolderSource | LmdbSource) else None
    known = cache.load() if cache else {}

    def size_of(index: int) -> tuple[int, int] | str:
        name = source.names[index]
        try:
            return known[name] if name in known else source.read(index).shape[:2]
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        sizes = list(tqdm(pool.map(size_of, indices), "Checking images", len(indices), disable=None, leave=False))
    found = dict(zip(indices, sizes, strict=True))
    if cache:
        cache.save({**known, **{source.names[i]: size for i, size in found.items() if not isinstance(size, str)}})
    return found


def first_ten(items: list[str]) -> list[str]:
    """The first ten lines of a message, and how many more there are."""
    return items[:10] + ([f"and {len(items) - 10} more"] if len(items) > 10 else [])


_Pair = tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
_SIZES = TypeAdapter(dict[str, tuple[_Pair, _Pair]])  # name to (bytes, ns) of the file and (height, width) of the image


class _ScanCache:
    """Sizes of the images of one folder or LMDB, valid while a file's size and time stay the same."""

    def __init__(self, source: FolderSource | LmdbSource) -> None:
        self.path = None  # no home folder, no cache
        what = f"{source.folder.resolve()} {VERSIONS}"
        with suppress(UserError, RuntimeError):
            self.path = user_cache() / f"scan-{sha256(what.encode()).hexdigest()[:16]}.json"
        self.stamps = source.stamps()

    def load(self) -> dict[str, tuple[int, int]]:
        try:
            stored = _SIZES.validate_json(self.path.read_bytes() if self.path else b"{}", strict=True)
        except (OSError, ValueError):  # ValueError: not written by this project
            return {}
        return {name: size for name, (stamp, size) in stored.items() if self.stamps.get(name) == list(stamp)}

    def save(self, sizes: dict[str, tuple[int, int]]) -> None:
        if self.path is None:
            return
        with suppress(WriteError):  # only a cache: the next start checks again
            write_text(json.dumps({name: [self.stamps[name], size] for name, size in sizes.items()}), self.path)
