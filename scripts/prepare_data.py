"""Cut photographs into overlapping sub-images that load fast, and pack these, or whole images, into an LMDB.

    python scripts/prepare_data.py -i datasets/DF2K/HR -o datasets/DF2K/HR_sub --lmdb
    python scripts/prepare_data.py -i datasets/Set5/HR --lmdb
    python scripts/prepare_data.py -i datasets/DF2K/HR --verify

The same command resumes where an earlier one ended; docs/data.md has the whole procedure.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import os

import cv2

from mrda_data import lr_set
from mrda_data.lmdb_source import LmdbSource, write_lmdb
from mrda_data.sources import FolderSource, open_source
from mrda_data.sub_images import Sizes, cut_all, for_each
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import UserError, run
from mrda_utils.files import write_bytes


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
        raise UserError(
            f"{target}: was made from other images than {folder} contains now; delete it to have it rebuilt"
        )
    if (folder / lr_set.MANIFEST).is_file():
        write_bytes((folder / lr_set.MANIFEST).read_bytes(), target / lr_set.MANIFEST)
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
