"""Files that are complete or absent, never half-written."""

from __future__ import annotations

import errno
import math
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from mrda_utils.errors import UserError

SHORT_NAME = 100  # bytes of a file's name, which any file system allows
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
INVALID_NAME = 123  # Windows, of a pattern such as *.jpg, which no file is called
NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)


class WriteError(UserError):
    """A file cannot be written; raised from the OSError that says why."""

    @property
    def of_any_file(self) -> bool:
        """Whether no other file can be written either: the file system is full or read-only."""
        return getattr(self.__cause__, "errno", None) in NO_ROOM


def kind_of(path: Path) -> str:
    """`folder`, `file`, `other` (a pipe, a device) or, where there is nothing, an empty text.

    Raises:
        OSError: it cannot be told: a folder is closed, the name is too long, a link leads to itself.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if getattr(error, "winerror", None) == INVALID_NAME:
            return ""
        raise
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


@contextmanager
def refusal_named(path: Path) -> Iterator[None]:
    """Name the file that cannot be written.

    Raises:
        WriteError: naming `path` and the reason, in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; at the end `path` has either all of it, flushed to the disk, or its earlier content.

    Raises:
        WriteError: the file system refused; nothing half-written stays behind.
    """
    temporary = temporary_beside(path)
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


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder that no other process draws, one of another machine or container included."""
    return path.with_name(f"{_stem(path)}{secrets.token_hex(4)}.tmp")


def left_over_beside(path: Path) -> list[Path]:
    """What a process that was killed has left of `temporary_beside`; or what another one is still writing."""
    return list(path.parent.glob(f"{escape(_stem(path))}*.tmp"))


def _stem(path: Path) -> str:
    """How temporary names begin; they are short where the file's own may be near the file system's limit."""
    name = os.fsencode(path.name)
    is_long = len(name) + len("..01234567.tmp") > SHORT_NAME
    return f".{sha256(name).hexdigest()[:16] if is_long else path.name}."


def _flush_names(folder: Path) -> None:
    """Flush a folder, so that a power cut cannot undo a renaming and keep a later deletion of older files.

    A file system that cannot flush folders (EINVAL, ENOTSUP ...) is accepted with one warning.
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
        _warn_not_flushed(folder)
    finally:
        os.close(descriptor)


_not_flushed: list[Path] = []


def _warn_not_flushed(folder: Path) -> None:
    """Warn once per process."""
    if not _not_flushed:
        _not_flushed.append(folder)
        line = f"warning: {folder}: its file system does not flush folders, so a power cut may undo the last files"
        print(line, file=sys.stderr)  # noqa: T201


def user_cache() -> Path:
    """Folder of what can be recomputed, in the user's cache; it need not exist.

    Raises:
        UserError: neither the environment nor the system's list of users says where that is.
    """
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "mrda"
    try:
        return Path.home() / ".cache/mrda"
    except RuntimeError as error:
        raise UserError("HOME: not set, and this user has no home folder; name a folder in XDG_CACHE_HOME") from error


def write_bytes(data: bytes, path: Path) -> None:
    """Write a file, folders included; see `written_whole`."""
    with refusal_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(data)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8, folders included; see `written_whole`."""
    write_bytes(text.encode(), path)


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
