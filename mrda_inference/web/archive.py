"""Several results in one file, made while it is sent: it takes no disk."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

CHUNK = 2**20


class _Pipe(io.RawIOBase):
    """What was written and not yet taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def zip_chunks(files: list[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip of files, not compressed (pictures are), in pieces.

    Args:
        files: names in the zip, which are numbered where they come twice, and where the files are.
    """
    pipe, used = _Pipe(), set()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            with archive.open(_unused(name, used), "w", force_zip64=True) as target, path.open("rb") as source:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield pipe.take()
    yield pipe.take()


def _unused(name: str, used: set[str]) -> str:
    path, number, unused = Path(name), 1, name
    while unused in used:
        number += 1
        unused = f"{path.stem}-{number}{path.suffix}"
    used.add(unused)
    return unused
