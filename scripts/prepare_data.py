"""Cut photographs into overlapping sub-images that load fast, and pack these, or whole images, into an LMDB.

    python scripts/prepare_data.py -i datasets/DF2K/HR -o datasets/DF2K/HR_sub --lmdb
    python scripts/prepare_data.py -i datasets/Set5/HR --lmdb
    python scripts/prepare_data.py -i datasets/DF2K/HR --verify

The same command goes on where an earlier one ended; docs/data.md tells the whole way.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any, NamedTuple

import cv2
from tqdm import tqdm

from mrda_data import lr_set
from mrda_data.images import ImageError, read_rgb8
from mrda_data.lmdb_source import LmdbSource, write_lmdb
from mrda_data.sources import FolderSource, open_source
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import UserError, run
from mrda_utils.files import written_whole

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
    num_parts: int

    def parts(self) -> list[str]:
        """Names of the sub-images."""
        return [f"{self.stem}_s{number:03d}.png" for number in range(1, self.num_parts + 1)]


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


def write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path) as file:
        file.write(data)


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


def verify(inputs: list[str], workers: int | None) -> None:
    """Decode every image of folders or LMDBs and name those that cannot be; writes nothing.

    Raises:
        UserError: there are such images.
    """
    images = [(source, index) for source in map(open_source, inputs) for index in range(len(source.names))]
    shapes = list(for_each(images, lambda image: image[0].read(image[1]).shape[:2], "Decoding", workers))
    if shapes:
        print(f"{len(shapes)} images can be used, the shortest side is {min(map(min, shapes))} pixels")  # noqa: T201
    raise_if_lost(len(images) - len(shapes), len(images))


def raise_if_lost(lost: int, total: int) -> None:
    """Raise UserError if images could not be used; they have been named already."""
    if lost:
        raise UserError(f"{lost} of {total} images cannot be used; they are named above")


def read_manifest(output: Path, sizes: Sizes) -> dict[str, Done]:
    """Return what earlier runs have cut; the output folder is new, or was made by these `sizes`.

    Raises:
        UserError: it holds other things.
    """
    path = output / MANIFEST
    if not path.exists():
        if output.exists() and any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise UserError(f"-o {output}: holds files that this script has not made; name a new folder")
        return {}
    entries = []
    for line in path.read_bytes().splitlines():
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError):  # a line that a killed run has begun, or one that is none of ours
            continue
    if not entries or entries[0] != sizes._asdict() or not all(map(_is_entry, entries[1:])):
        known = bool(entries) and isinstance(entries[0], dict)
        made_by = " ".join(f"--{key} {value}" for key, value in entries[0].items()) if known else "a run that failed"
        raise UserError(f"-o {output}: was made by {made_by}; name a new folder, or delete this one")
    return {entry["stem"]: Done(**entry) for entry in entries[1:]}


def _is_entry(entry: Any) -> bool:
    """Whether this is a line of a manifest; an output folder, too, may be somebody else's."""
    return (
        isinstance(entry, dict)
        and set(entry) == set(Done._fields)
        and isinstance(entry["stem"], str)
        and isinstance(entry["source"], str)
        and type(entry["num_parts"]) is int
        and 1 <= entry["num_parts"] <= _MAX_PARTS
    )


def find_images(inputs: list[str], output: Path, done: dict[str, Done]) -> dict[str, Path]:
    """Return stem -> file of every image below the input folders.

    Raises:
        UserError: no image, input and output inside one another, or two images whose sub-images had one name.
    """
    found: dict[str, Path] = {}
    for folder in map(Path, inputs):
        here, there = folder.resolve(), output.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise UserError(f"-o {output}: one of it and -i {folder} lies in the other; keep them apart")
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
    (output / stem).parent.mkdir(parents=True, exist_ok=True)
    for name, (top, left) in zip(done.parts(), corners, strict=True):
        part = image[top : top + sizes.crop_size, left : left + sizes.crop_size, ::-1]
        write(output / name, cv2.imencode(".png", part, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])[1].tobytes())
    return done


def cut_all(inputs: list[str], output: Path, sizes: Sizes, workers: int | None) -> tuple[int, int]:
    """Cut what has not been cut yet; return the numbers of images that could not be used, and of all.

    An image is complete when it stands in the manifest, its file has not changed, and its sub-images are there.
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
        print(f"{output} also holds sub-images of {len(others)} images not in -i, such as {min(others)}")  # noqa: T201
    lines = [sizes._asdict(), *(entry._asdict() for entry in done.values())]
    write(output / MANIFEST, "".join(json.dumps(line) + "\n" for line in lines).encode())
    num_cut = 0
    with (output / MANIFEST).open("a", encoding="utf-8") as manifest:
        for entry in for_each(missing, lambda stem: cut(stem, images[stem], output, sizes), "Cutting", workers):
            manifest.write(json.dumps(entry._asdict()) + "\n")
            manifest.flush()
            num_cut += 1
    return len(missing) - num_cut, len(images)


def pack(folder: Path, workers: int | None) -> None:
    """Pack the images of a folder, and the hashes of an LR set, into `<folder>.lmdb`, unless they are there.

    Raises:
        UserError: the LMDB is of other images; or the file system refused.
    """
    folder = Path(os.path.abspath(folder))
    target = folder.with_name(f"{folder.name}.lmdb")
    source = FolderSource(folder)
    if not target.exists():
        write_lmdb(folder, source.names, target, workers)
    elif LmdbSource(target).names != source.names or max(time for _, time in source.stamps().values()) > (
        (target / "data.mdb").stat().st_mtime_ns
    ):
        raise UserError(f"{target}: was made from other images than {folder} holds now; delete it to have it made anew")
    if (folder / lr_set.MANIFEST).is_file():
        write(target / lr_set.MANIFEST, (folder / lr_set.MANIFEST).read_bytes())
    print(f"{target}: {len(source.names)} images")  # noqa: T201


def main() -> None:
    """Parse the command line, and do it."""
    parser = argument_parser(__doc__)
    parser.add_argument("-i", "--input", nargs="+", required=True, help="folders of images, sub-folders included")
    parser.add_argument("-o", "--output", help="folder of the sub-images; names and sub-folders are kept")
    parser.add_argument("--crop_size", type=int, default=480, help="side of a sub-image, pixels (default: 480)")
    parser.add_argument("--step", type=int, default=240, help="from one to the next, pixels (default: 240)")
    parser.add_argument("--thresh_size", type=int, default=0, help="border that may be left out, pixels (default: 0)")
    parser.add_argument("--lmdb", action="store_true", help="pack OUTPUT into OUTPUT.lmdb; without -o, INPUT, uncut")
    parser.add_argument("--verify", action="store_true", help="only decode every image and name the bad ones")
    parser.add_argument("--workers", type=int, help="threads (default: a few more than cores)")
    args = parser.parse_args()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its warnings do not say which file
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers {args.workers}: at least 1 is needed")
    if args.verify:
        verify(args.input, args.workers)
        return
    if args.output is None and args.lmdb:
        for folder in args.input:
            pack(Path(folder), args.workers)
        return
    if args.output is None:
        raise UserError("-o: missing, name the folder of the sub-images (or --lmdb, --verify)")
    if not 1 <= args.step <= args.crop_size:
        raise UserError(f"--step {args.step}: it takes 1 to --crop_size, {args.crop_size}, or parts were left out")
    if args.thresh_size < 0:
        raise UserError(f"--thresh_size {args.thresh_size}: it takes 0 or more")
    output = Path(args.output)
    if output.suffix == ".lmdb":
        raise UserError(f"-o {output}: name the folder of the sub-images; --lmdb packs it into <folder>.lmdb")
    try:
        lost, total = cut_all(args.input, output, Sizes(args.crop_size, args.step, args.thresh_size), args.workers)
        print(f"{output}: sub-images of {total - lost} images")  # noqa: T201
        if args.lmdb and lost < total:
            pack(output, args.workers)
    except OSError as error:
        raise UserError(f"-o {output}: cannot go on ({error})") from error
    raise_if_lost(lost, total)


if __name__ == "__main__":
    run(main, interrupted="interrupted; the same command goes on from here")
