"""Which files the command line names, and what their outputs are called."""

from __future__ import annotations

import os
import sys
from collections import Counter
from glob import glob
from pathlib import Path

from PIL import Image

from mrda_data.folders import list_images
from mrda_data.images import SUFFIXES, ImageError
from mrda_inference.image_writer import LONGEST_SIDE
from mrda_utils.errors import OptionError, printable
from mrda_utils.files import kind_of


def files_to_make(patterns: list[str], output: Path, form: str | None = None) -> list[tuple[Path, Path]]:
    """Every input file with its output file.

    Args:
        patterns: files, folders, and patterns such as `photos/*.jpg`.
        output: a folder; or a file, for one input file.
        form: of the outputs, `png`, `jpg` or `webp`; None: that of the file named, png in a folder.

    Raises:
        UserError: an input that is none, or an output that cannot be.
    """
    is_one_file = len(patterns) == 1 and _kind("-i", Path(patterns[0])) == "file"
    kind = _kind("-o", output)
    if is_one_file and output.suffix.lower() in LONGEST_SIDE and kind in ("file", ""):
        if form and output.suffix.lower().replace("jpeg", "jpg") != f".{form}":
            raise OptionError(f"--format {form}: disagrees with -o {output}; leave it out, or change the name")
        _check_folder(output.parent)
        return [(Path(patterns[0]), output)]
    if kind in ("file", "other") or (output.suffix.lower() in _pictures() and kind != "folder"):
        raise OptionError(f"-o {output}: name a folder or, for one input file, a file in {' '.join(LONGEST_SIDE)}")
    _check_folder(output)
    found = [pair for pattern in patterns for pair in _inputs(pattern, output)]
    unique = dict(found)  # a file named twice is upscaled once
    suffix = form or "png"
    plain = [output / name.with_name(f"{name.stem}.{suffix}") for name in unique.values()]
    alike = {path for path, count in Counter(plain).items() if count > 1}  # of a.jpg and a.png: a_jpg.png, a_png.png
    return [
        (source, path.with_name(f"{path.stem}_{source.suffix[1:].lower()}.{suffix}") if path in alike else path)
        for source, path in zip(unique, plain, strict=True)
    ]


def _inputs(pattern: str, output: Path) -> list[tuple[Path, Path]]:
    """Files that one argument of -i names, and where they lie below the output folder."""
    path, inside = Path(pattern), output.resolve()
    kind = _kind("-i", path)
    if kind == "folder":
        if inside == path.resolve():
            raise OptionError(f"-o {output}: is the input folder; choose another")
        listing = list_images(path)
        if listing.others:
            print(f"{printable(str(path))}: {listing.left_out()}", file=sys.stderr)  # noqa: T201
        return [(image, image.relative_to(path)) for image in _others([path / name for name in listing.names], inside)]
    if kind == "file":
        return [(path, Path(path.name))]
    if kind == "other":
        raise ImageError(f"-i {pattern}: a pipe or device, no image file")
    matches = [Path(name) for name in sorted(glob(pattern, recursive=True)) if os.path.isfile(name)]
    images = [match for match in matches if match.suffix.lower() in SUFFIXES]
    if not images:
        raise ImageError(f"-i {pattern}: no such file or folder, and no image that it matches")
    return [(image, Path(image.name)) for image in _others(images, inside)]


def _kind(option: str, path: Path) -> str:
    """See `kind_of`; a UserError where it cannot be told."""
    try:
        return kind_of(path)
    except OSError as error:
        raise OptionError(f"{option} {path}: cannot be used ({error.strerror}); name another") from error


def _pictures() -> set[str]:
    """Suffixes of pictures: of those that are read here, and of all others that Pillow knows."""
    return {*SUFFIXES, *Image.registered_extensions()}


def _check_folder(folder: Path) -> None:
    """Refuse a folder, which need not exist, if its place or that of one above has a file or a link to nothing."""
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            raise OptionError(f"-o {folder}: {place} is a link to nothing; remove it, or name another folder")
        if _kind("-o", place) in ("file", "other"):
            raise OptionError(f"-o {folder}: {place} is no folder; name another")


def _others(images: list[Path], inside: Path) -> list[Path]:
    """Without what an earlier run wrote into the output folder, unless that is all there is."""
    return [image for image in images if inside not in image.resolve().parents] or images
