"""Photographs cut into overlapping sub-images, which load fast; a manifest lists what is done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from mrda_data.images import ImageError, read_rgb8
from mrda_data.sources import FolderSource
from mrda_utils.errors import UserError
from mrda_utils.files import write_bytes, write_text

MANIFEST = "prepare_data.jsonl"
PNG_COMPRESSION = 3
_MAX_PARTS = 10**6  # of an image


class Sizes(NamedTuple):
    """How an image is cut, pixels."""

    crop_size: int
    step: int
    thresh_size: int


class Done(NamedTuple):
    """An image that has been cut; a line of the manifest."""

    stem: str
    """Its path below the input folder, without suffix; that of its sub-images begins so."""
    source: str
    stamp: list[int]
    """Size (bytes) and time (ns) of the file that was cut."""
    num_parts: Annotated[int, Ge(1), Le(_MAX_PARTS)]

    def parts(self) -> list[str]:
        """Names of the sub-images."""
        return [f"{self.stem}_s{number:03d}.png" for number in range(1, self.num_parts + 1)]


_LINES = TypeAdapter(list[Done])


def starts(length: int, sizes: Sizes) -> list[int]:
    """First pixels of the sub-images along a side of `length` pixels; the last one ends at the border.

    At most `thresh_size` pixels at the border are left out. A side shorter than `crop_size` is kept whole.
    """
    if length <= sizes.crop_size:
        return [0]
    found = list(range(0, length - sizes.crop_size + 1, sizes.step))
    if length - sizes.crop_size - found[-1] > sizes.thresh_size:
        found.append(length - sizes.crop_size)
    return found


def for_each(items: list, work: Callable[[Any], Any], label: str, workers: int | None) -> Iterator[Any]:
    """Yield `work(item)` of every item, done in threads; an item that raises ImageError is printed and left out.

    Threads, not processes: OpenCV works outside Python's lock, and none outlives a killed run.
    """

    def attempt(item: Any) -> Any:
        try:
            return work(item)
        except ImageError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    try:
        for result in tqdm(pool.map(attempt, items), label, len(items), unit="image", disable=None):
            if isinstance(result, ImageError):
                tqdm.write(str(result))
            else:
                yield result
    finally:
        pool.shutdown(cancel_futures=True)


def read_manifest(output: Path, sizes: Sizes) -> dict[str, Done]:
    """Return what earlier runs have cut; the output folder is new, or was made by these `sizes`.

    Raises:
        UserError: it contains other things.
    """
    path = output / MANIFEST
    if not path.exists():
        if output.exists() and any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise UserError(f"-o {output}: contains files that this script has not made; name a new folder")
        return {}
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):  # a line that a killed run has begun, or one that is none of ours
            continue
    known = bool(lines) and isinstance(lines[0], dict)
    if known and lines[0] == sizes._asdict():
        with suppress(ValidationError):
            return {done.stem: done for done in _LINES.validate_python(lines[1:], strict=True)}
    made_by = " ".join(f"--{key} {value}" for key, value in lines[0].items()) if known else "a run that failed"
    raise UserError(f"-o {output}: was made by {made_by}; name a new folder, or delete this one")


def find_images(inputs: list[str], output: Path, done: dict[str, Done]) -> dict[str, Path]:
    """Return stem -> file of every image below the input folders.

    Raises:
        UserError: no image, input and output inside one another, or two images whose sub-images had one name.
    """
    found: dict[str, Path] = {}
    for folder in map(Path, inputs):
        here, there = folder.resolve(), output.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise UserError(f"-o {output}: one of it and -i {folder} is inside the other; keep them apart")
        for name in FolderSource(folder).names:
            path, stem = here / name, os.path.splitext(name)[0]
            others = {found.get(stem), Path(done[stem].source) if stem in done else None} - {path, None}
            for other in others:
                if other.is_file():
                    raise UserError(
                        f"-i {folder}: {path} and {other} would have sub-images of one name; rename one, or cut their "
                        f"folders into two sub-folders of one folder (training reads sub-folders)"
                    )
            found[stem] = path
    return found


def cut(stem: str, path: Path, output: Path, sizes: Sizes) -> Done:
    """Write the sub-images of one image as PNG, 8-bit RGB."""
    status = path.stat()
    image = read_rgb8(path)
    corners = list(product(starts(image.shape[0], sizes), starts(image.shape[1], sizes)))
    done = Done(stem, str(path), [status.st_size, status.st_mtime_ns], len(corners))
    for name, (top, left) in zip(done.parts(), corners, strict=True):
        part = image[top : top + sizes.crop_size, left : left + sizes.crop_size, ::-1]
        data = cv2.imencode(".png", part, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])[1]
        write_bytes(data.tobytes(), output / name)
    return done


def cut_all(inputs: list[str], output: Path, sizes: Sizes, workers: int | None) -> tuple[int, int]:
    """Cut what has not been cut yet; return the numbers of images that could not be used, and of all.

    An image is complete when the manifest lists it, its file has not changed, and its sub-images are there.
    """
    done = read_manifest(output, sizes)
    images = find_images(inputs, output, done)
    output.mkdir(parents=True, exist_ok=True)
    for left_over in output.rglob(".*.tmp"):  # of runs that were killed
        left_over.unlink()
    there = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}

    def is_complete(stem: str) -> bool:
        status = images[stem].stat()
        entry = done.get(stem)
        return entry and entry.stamp == [status.st_size, status.st_mtime_ns] and there.issuperset(entry.parts())

    missing = [stem for stem in images if not is_complete(stem)]
    for changed in [done.pop(stem) for stem in missing if stem in done]:
        for part in changed.parts():  # it may have fewer of them now
            (output / part).unlink(missing_ok=True)
    others = done.keys() - images.keys()
    if others:
        print(f"{output} also contains sub-images of {len(others)} images not in -i, such as {min(others)}")  # noqa: T201
    lines = [sizes._asdict(), *(entry._asdict() for entry in done.values())]
    write_text("".join(json.dumps(line) + "\n" for line in lines), output / MANIFEST)
    num_cut = 0
    with (output / MANIFEST).open("a", encoding="utf-8") as manifest:
        for entry in for_each(missing, lambda stem: cut(stem, images[stem], output, sizes), "Cutting", workers):
            manifest.write(json.dumps(entry._asdict()) + "\n")
            manifest.flush()
            num_cut += 1
    return len(missing) - num_cut, len(images)
