"""Which files the command line names, and what their outputs are called."""

from __future__ import annotations

import sys
from collections import Counter
from glob import glob
from pathlib import Path

from mrda_data.folders import list_images
from mrda_data.images import SUFFIXES, ImageError
from mrda_inference.image_writer import LONGEST_SIDE
from mrda_utils.errors import OptionError


def files_to_make(patterns: list[str], output: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Every input file with its output file.

    Args:
        patterns: files, folders, and patterns such as `photos/*.jpg`.
        output: a folder; or a file, for one input file.
        suffix: of the outputs in a folder, without its dot.

    Raises:
        UserError: an input that is none, or an output that cannot be.
    """
    is_one_file = len(patterns) == 1 and Path(patterns[0]).is_file()
    if is_one_file and output.suffix.lower() in LONGEST_SIDE and not output.is_dir():
        return [(Path(patterns[0]), output)]
    if output.is_file() or (output.suffix.lower() in SUFFIXES and not output.is_dir()):
        raise OptionError(f"-o {output}: name a folder or, for one input file, a file in {' '.join(LONGEST_SIDE)}")
    found = [pair for pattern in patterns for pair in _inputs(pattern, output)]
    unique = dict(found)  # a file named twice is upscaled once
    plain = [output / name.with_name(f"{name.stem}.{suffix}") for name in unique.values()]
    alike = {path for path, count in Counter(plain).items() if count > 1}  # of a.jpg and a.png: a_jpg.png, a_png.png
    return [
        (source, path.with_name(f"{path.stem}_{source.suffix[1:].lower()}.{suffix}") if path in alike else path)
        for source, path in zip(unique, plain, strict=True)
    ]


def _inputs(pattern: str, output: Path) -> list[tuple[Path, Path]]:
    """Files that one argument of -i names, and where they lie below the output folder."""
    path, inside = Path(pattern), output.resolve()
    if path.is_dir():
        if inside == path.resolve():
            raise OptionError(f"-o {output}: is the input folder; choose another")
        listing = list_images(path)
        if listing.others:
            print(f"{path}: {listing.left_out()}", file=sys.stderr)  # noqa: T201
        return [(image, image.relative_to(path)) for image in _others([path / name for name in listing.names], inside)]
    if path.is_file():
        return [(path, Path(path.name))]
    if path.exists():
        raise ImageError(f"-i {pattern}: a pipe or device, no image file")
    matches = [Path(name) for name in sorted(glob(pattern, recursive=True))]
    images = [match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()]
    if not images:
        raise ImageError(f"-i {pattern}: no such file or folder, and no image that it matches")
    return [(image, Path(image.name)) for image in _others(images, inside)]


def _others(images: list[Path], inside: Path) -> list[Path]:
    """Without what an earlier run wrote into the output folder, unless that is all there is."""
    return [image for image in images if inside not in image.resolve().parents] or images
