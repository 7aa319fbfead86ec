"""Photographs that visitors sent: where they lie, how much room they may take, and when they go."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from mrda_inference.web import texts
from mrda_utils.errors import UNPRINTABLE, UserError

MOST_BYTES = 2**32  # that uploads and results take altogether
MOST_UPLOAD = 2**28  # bytes of one file
MOST_PHOTOS = 200
UNUSED_SECONDS, FETCHED_SECONDS = 600, 60  # until a photograph goes: since its last use; since its result was fetched


class StoreFullError(UserError):
    """No room for another photograph."""


@dataclass(eq=False)
class Photo:
    """One upload; its folder has one for the file as it came, and one for what each job makes of it."""

    id: str
    """Nobody can guess it: who knows it may see the photograph."""
    name: str
    """Of the file, as the visitor calls it."""
    folder: Path
    sides: tuple[int, int] = (0, 0)
    """Height and width, pixels, the way up that it is looked at."""
    used: float = field(default_factory=lambda: monotonic())
    """When it was last asked for."""
    fetched: float | None = None
    """When its result was."""

    @property
    def source(self) -> Path:
        """The file as it came."""
        return self.folder / "source" / self.name

    def touch(self) -> None:
        """Note that it is used."""
        self.used = monotonic()

    def was_fetched(self) -> None:
        """Note that its result has been sent."""
        self.fetched = monotonic()

    def in_own_words(self, message: str) -> str:
        """A message in the page's words, without the places of files, which are nobody's business."""
        folder = re.escape(str(self.folder))
        message = re.sub(rf"{folder}/[\w-]+/", "", message)
        message = re.sub(rf"{folder}[\w/-]*", lambda match: self.name, message)  # a folder, not a file in it
        return texts.of_page(message)


def safe_name(name: str) -> str:
    """The last part of a name that came from outside, fit for a file of ours."""
    last = UNPRINTABLE.sub("", name.replace("\\", "/").rpartition("/")[2]).strip().lstrip(".")
    stem, dot, suffix = last.rpartition(".")
    stem, suffix = (stem, suffix[:10]) if dot else (last, "")
    while len(stem.encode()) > 120:
        stem = stem[:-1]
    return f"{stem or 'photograph'}{dot}{suffix}"


class Store:
    """All photographs that are there.

    Args:
        folder: where their files lie; it is made, and taken away, by the caller.
        is_busy: whether work on a photograph waits or goes on; such a one stays.
    """

    def __init__(self, folder: Path, is_busy: Callable[[Photo], bool] = lambda photo: False) -> None:
        self.folder, self.is_busy = folder, is_busy
        self._photos: dict[str, Photo] = {}
        self._reserved: dict[str, int] = {}
        self._lock = threading.Lock()

    def get(self, id_: str) -> Photo | None:
        """The photograph of this id, which thereby is used."""
        photo = self._photos.get(id_)
        if photo is not None:
            photo.touch()
        return photo

    def __len__(self) -> int:
        return len(self._photos)

    def bytes(self) -> int:
        """What all files take, those that are still coming included."""
        files = (path.lstat().st_size for path in list(self.folder.rglob("*")) if path.is_file())
        return sum(files) + sum(self._reserved.values())

    def check_room(self, size: int = 0) -> None:
        """Whether `size` more bytes fit.

        Raises:
            StoreFullError: they do not.
        """
        if len(self) + len(self._reserved) >= MOST_PHOTOS or self.bytes() + size > MOST_BYTES:
            raise StoreFullError("there is no room for more photographs at present; try again in some minutes")

    @contextmanager
    def arriving(self, name: str, size: int) -> Iterator[Photo]:
        """Room for an upload of at most `size` bytes, written to `source` inside; an error there takes it away.

        Raises:
            StoreFullError: there is none.
        """
        id_ = secrets.token_urlsafe(16)
        photo = Photo(id_, safe_name(name), self.folder / id_)
        with self._lock:
            self.check_room(size)
            self._reserved[id_] = size
        try:
            photo.source.parent.mkdir(parents=True)
            yield photo
            self._photos[id_] = photo
        except BaseException:
            shutil.rmtree(photo.folder, ignore_errors=True)
            raise
        finally:
            del self._reserved[id_]

    def delete(self, photo: Photo) -> None:
        """Take away a photograph and all that was made of it."""
        self._photos.pop(photo.id, None)
        shutil.rmtree(photo.folder, ignore_errors=True)

    def sweep(self) -> list[Photo]:
        """Take away what nobody has used for ten minutes, or fetched a minute ago; return it."""
        now = monotonic()
        gone = []
        for photo in list(self._photos.values()):
            is_fetched = photo.fetched is not None and now - photo.fetched > FETCHED_SECONDS
            if (is_fetched or now - photo.used > UNUSED_SECONDS) and not self.is_busy(photo):
                self.delete(photo)
                gone.append(photo)
        return gone
