"""Which files of a folder are images; phones, Macs and Windows add others."""

from __future__ import annotations

import os
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

from mrda_data.images import SUFFIXES, ImageError
from mrda_utils.errors import printable
from mrda_utils.files import kind_of

NO_FILES = ("thumbs.db", "desktop.ini", "sha256sums", "prepare_data.jsonl")  # of systems, and of this project
NO_FOLDERS = ("__macosx", "$recycle.bin")
UNREACHABLE = "unreachable"  # links to nothing, to themselves or into a folder that is closed
NO_FILE = "pipe or device"


class Listing(NamedTuple):
    """The files below a folder."""

    names: list[str]
    """Of images, POSIX and relative, sorted."""
    others: Counter[str]
    """Suffix of other files, `UNREACHABLE` or `NO_FILE` -> how many."""

    def left_out(self) -> str:
        """The other files in words: `left out: 2 .gif, 1 .txt`; nothing if there is none."""
        counts = ", ".join(f"{count} {printable(suffix)}" for suffix, count in sorted(self.others.items()))
        return f"left out: {counts}" if counts else ""


def list_images(folder: str | Path) -> Listing:
    """All images below a folder, sub-folders and links to folders included, each folder once.

    Hidden files and folders, `__MACOSX`, `Thumbs.db` and the like are skipped.

    Raises:
        ImageError: no folder of this name, no image in it, or a sub-folder that cannot be listed.
    """
    root = Path(folder)
    try:
        if kind_of(root) != "folder":
            raise ImageError(f"{folder}: no such folder")
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({error.strerror})") from error
    names, others, seen = [], Counter(), set()
    pending, links = deque([root]), deque()
    while pending or links:
        here = pending.popleft() if pending else links.popleft()  # what is linked may also be here under its own name
        for entry, kind in _entries(here, seen):
            path = here / entry.name
            if kind == "folder":
                (links if entry.is_symlink() else pending).append(path)
            elif kind == "file" and path.suffix.lower() in SUFFIXES:
                names.append(path.relative_to(root).as_posix())
            elif kind == "file":
                others[path.suffix.lower() or "without suffix"] += 1
            else:
                others[kind] += 1
    listing = Listing(sorted(names), others)
    if not names:
        found = listing.left_out()
        raise ImageError(
            f"{folder}: no image in it (looked for {' '.join(SUFFIXES)}, sub-folders included)"
            + (f"; {found}" if found else "")
        )
    return listing


def _entries(folder: Path, seen: set[tuple[int, int]]) -> list[tuple[os.DirEntry, str]]:
    """Entries of a folder that are not skipped, each with its kind; none if the folder was listed before."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            found = [(entry, _kind(entry)) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({error.strerror})") from error
    skipped = {"folder": NO_FOLDERS}
    return sorted(
        ((entry, kind) for entry, kind in found if entry.name.lower() not in skipped.get(kind, NO_FILES)),
        key=lambda pair: pair[0].name,
    )


def _kind(entry: os.DirEntry) -> str:
    """`folder`, `file`, UNREACHABLE or NO_FILE."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:
        return UNREACHABLE
    return NO_FILE
