"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from mrda_utils.errors import UserError

SHORT_NAME = 100  # bytes of a file's name, which any file system holds
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)


class WriteError(UserError):
    """The file system does not take a file; raised from the OSError that says why."""

    @property
    def of_any_file(self) -> bool:
        """Whether it would take no other file either: it is full or read-only."""
        return getattr(self.__cause__, "errno", None) in NO_ROOM


@contextmanager
def refusal_named(path: Path) -> Iterator[None]:
    """Say which file it is that the file system does not write.

    Raises:
        WriteError: naming `path` and the reason, in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; at the end `path` holds either all of it, flushed to the disk, or what it held before.

    Raises:
        WriteError: the file system refused; nothing half-written stays behind.
    """
    temporary = path.with_name(_temporary_name(path.name))
    try:
        with refusal_named(path):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _flush_names(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """A hidden name beside `name`; of a long one, which the file system may just hold, it is no longer."""
    ends = f".{os.getpid()}.tmp"
    longest = max(len(os.fsencode(name)), SHORT_NAME)
    if len(os.fsencode(f".{name}{ends}")) > longest:
        name = sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{name}{ends}"


def _flush_names(folder: Path) -> None:
    """Else a power cut could undo a renaming, but not the deletion of older files after it.

    A file system that cannot do so with folders (EINVAL, ENOTSUP ...) is taken as it is, which is said once.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder; elsewhere one may be written but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise
        _tell_not_flushed(folder)
    finally:
        os.close(descriptor)


_not_flushed: list[Path] = []


def _tell_not_flushed(folder: Path) -> None:
    """Say so, once a process."""
    if not _not_flushed:
        _not_flushed.append(folder)
        line = f"warning: {folder}: its file system does not flush folders, so a power cut may undo the last files"
        print(line, file=sys.stderr)  # noqa: T201


def user_cache() -> Path:
    """Folder of what can be made again, in the user's cache; it need not exist.

    Raises:
        UserError: neither the environment nor the system's list of users says where that is.
    """
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "mrda"
    try:
        return Path.home() / ".cache/mrda"
    except RuntimeError as error:
        raise UserError("HOME: not set, and this user has no home folder; name a folder in XDG_CACHE_HOME") from error


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, folders included; see `written_whole`."""
    with refusal_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(text.encode())


def append_line(line: str, path: Path) -> None:
    """Add a line to a short text file; half a line, which a killed process may have left at its end, goes first.

    Raises:
        UserError: the file system refused; the file has the lines that it had.
    """
    with refusal_named(path), path.open("a+b", buffering=0) as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        data = f"{line}\n".encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(whole)
            raise


def json_value(value: object) -> object:
    """`value`, but a text for infinity and NaN, which JSON lacks: "inf" is the PSNR of equal images."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
