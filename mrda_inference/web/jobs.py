"""Work on photographs: one job at a time, previews first, each with an honest place and time."""

from __future__ import annotations

import secrets
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from mrda_inference.photograph import Cancelled
from mrda_inference.web import texts
from mrda_inference.web.store import Photo
from mrda_utils.errors import UserError, is_out_of_memory

MOST_WAITING = 100  # jobs

State = Literal["waiting", "working", "done", "failed", "cancelled"]


class QueueFullError(UserError):
    """Too many jobs wait."""


@dataclass(eq=False)
class Job:
    """Something to do with a photograph."""

    photo: Photo
    kind: Literal["preview", "whole"]
    work: Callable[[Job], Any]
    """Does it, calling `progress`; what it returns is `result`."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    done: int = 0
    total: int = 0
    """Tiles; 0 as long as nobody knows."""
    began: float = 0.0
    ticked: float = 0.0
    """When the last tile was done."""
    result: Any = None
    error: str = ""
    stop: bool = False

    @property
    def folder(self) -> Path:
        """What it writes is there, and nothing of other jobs."""
        return self.photo.folder / self.id

    def progress(self, done: int, total: int) -> None:
        """So many tiles are done.

        Raises:
            Cancelled: nobody wants the others.
        """
        if self.stop:
            raise Cancelled
        if (done, total) != (self.done, self.total):
            self.done, self.total, self.ticked = done, total, monotonic()


class JobQueue:
    """Jobs that wait and the thread that works them off.

    Args:
        finished: called after each job, in that thread.
    """

    def __init__(self, finished: Callable[[Job], None] = lambda job: None) -> None:
        self._finished = finished
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._current: Job | None = None
        self._pace: float | None = None  # seconds a pixel, of the last whole photographs
        self._change = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)
        self._thread.start()

    def get(self, id_: str) -> Job | None:
        """The job of this id."""
        return self._jobs.get(id_)

    def submit(self, job: Job) -> Job:
        """Put a job at the end; a preview before all whole photographs, and in the place of the last one of the same.

        Raises:
            QueueFullError: too many wait.
        """
        with self._change:
            if job.kind == "preview":
                self._withdraw([other for other in self._of(job.photo) if other.kind == "preview"])
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFullError("too many photographs wait at present; try again in some minutes")
            previews = sum(other.kind == "preview" for other in self._waiting)
            self._waiting.insert(previews if job.kind == "preview" else len(self._waiting), job)
            self._jobs[job.id] = job
            self._change.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """End a job, at the next tile if it is worked on; one that is done stays."""
        with self._change:
            self._withdraw([job])

    def forget(self, photo: Photo) -> list[Job]:
        """End all jobs of a photograph; nobody can ask for them any more. They are returned."""
        with self._change:
            forgotten = self._of(photo)
            self._withdraw(forgotten)
            for job in forgotten:
                del self._jobs[job.id]
        return forgotten

    def is_busy(self, photo: Photo) -> bool:
        """Whether a job of this photograph waits or is worked on."""
        return any(job.state in ("waiting", "working") for job in self._of(photo))

    def status(self, job: Job) -> dict[str, Any]:
        """What the page shows of a job."""
        with self._change:
            return {
                "state": "cancelled" if job.stop else job.state,
                "share": job.done / job.total if job.total else 0.0,
                "text": self._text(job),
                "error": job.error,
            }

    def end(self) -> None:
        """Work no more; returns when the present tile is done, or after some seconds."""
        with self._change:
            self._ends = True
            self._withdraw(list(self._jobs.values()))
            self._change.notify_all()
        self._thread.join(10)

    # -------------------------------------------------------------------------------------------------------- inside
    def _of(self, photo: Photo) -> list[Job]:
        return [job for job in list(self._jobs.values()) if job.photo is photo]

    def _withdraw(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.state in ("waiting", "working"):
                job.stop = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"

    def _seconds(self, job: Job) -> float | None:
        """What is left of a job; None where nobody knows."""
        height, width = job.photo.sides
        expected = None if self._pace is None or job.kind == "preview" else self._pace * height * width
        if job is not self._current:
            return 0.0 if job.kind == "preview" else expected
        if job.done:
            restored = min(job.done + 1, job.total)  # a tile is done once the one after it has been restored
            left = (job.ticked - job.began) / restored * (job.total - restored) - (monotonic() - job.ticked)
            return max(left, 1.0)
        return None if expected is None else max(expected - (monotonic() - job.began), 1.0)

    def _text(self, job: Job) -> str:
        if job.stop:
            return "cancelled"
        if job.state == "working":
            return texts.working(job.done, job.total, self._seconds(job)) if job.kind == "whole" else "preview"
        if job.state != "waiting":
            return job.state
        place = self._waiting.index(job)
        before = [*([self._current] if self._current else []), *self._waiting[:place]]
        seconds = [self._seconds(other) for other in before]
        return texts.waiting(len(before), None if None in seconds else sum(filter(None, seconds)))

    def _run(self) -> None:
        while True:
            with self._change:
                self._current = None
                self._change.wait_for(lambda: self._waiting or self._ends)
                if self._ends:
                    return
                job = self._current = self._waiting.pop(0)
                job.state, job.began = "working", monotonic()
            self._work(job)
            self._finished(job)

    def _work(self, job: Job) -> None:
        result: Any = None
        state: State = "done"
        try:
            result = job.work(job)
        except Cancelled:
            state = "cancelled"
        except UserError as error:
            state, job.error = "failed", job.photo.in_own_words(str(error))
        except Exception as error:  # the page goes on
            state, job.error = "failed", _unexpected(error)
        with self._change:
            job.state = "cancelled" if job.stop else state
            if job.state == "done":
                job.result = result
                if job.kind == "whole":
                    pace = (monotonic() - job.began) / max(job.photo.sides[0] * job.photo.sides[1], 1)
                    self._pace = pace if self._pace is None else (self._pace + pace) / 2


def _unexpected(error: Exception) -> str:
    """What the page says of an error that is not the visitor's; the rest is in the terminal."""
    if is_out_of_memory(error):
        return "out of memory; take a smaller photograph"
    traceback.print_exception(error)
    return "this failed for a reason that is not the photograph's; the terminal of mrda-web says more"
