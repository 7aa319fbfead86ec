"""Loader processes that end before their time: told in one line."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data._utils import signal_handling

from mrda_utils.errors import UserError

_LOST = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal[^.]*)|shared memory|ancdata|open files")

_displaced: list[Callable] = []  # torch's handler of SIGCHLD, which it installs once a process


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Around all that happens while loader processes run: torch tells of a dead one at any time.

    A batch that finds no room in /dev/shm is lost in a thread of its process, and torch's loader would wait for it
    without end; here that process ends as well.

    After the block nothing of it is raised any more, also if a worker that has closed its pipes ends only then.

    Raises:
        UserError: in place of what torch says.
    """
    earlier = Queue._on_queue_feeder_error, sys.excepthook
    # loader processes, being forks, inherit both
    Queue._on_queue_feeder_error, sys.excepthook = staticmethod(_end_worker), _leave_quietly
    complaints, sys.unraisablehook = sys.unraisablehook, _no_complaint_of_loaders
    try:
        with _deaths_of_workers_raised():
            yield
    except RuntimeError as error:
        if not (found := _LOST.search(str(error))):
            raise
        raise _ended(found[0]) from error
    else:
        sys.unraisablehook = complaints  # after an error, loaders are deleted later than here
    finally:
        Queue._on_queue_feeder_error, sys.excepthook = earlier


@contextmanager
def _deaths_of_workers_raised() -> Iterator[None]:
    """Have torch's handler of SIGCHLD, which raises RuntimeError wherever the program is, in the block alone."""
    if not hasattr(signal, "SIGCHLD"):  # Windows
        yield
        return
    if _displaced:
        signal.signal(signal.SIGCHLD, _displaced.pop())
    try:
        yield
    finally:
        handler = signal.getsignal(signal.SIGCHLD)
        if getattr(handler, "__module__", None) == signal_handling.__name__:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _displaced.append(handler)


def batches(loader: DataLoader) -> Iterator[Any]:
    """What `loader` gives.

    Raises:
        UserError: its processes are gone, or the system refuses them semaphores or descriptors.
    """
    try:
        yield from loader
    except (OSError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _LOST.search(str(error)):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _ended(reason.splitlines()[0]) from error


def _ended(reason: object) -> UserError:
    return UserError(
        f"loader processes have ended or cannot work ({reason}); more memory, a larger /dev/shm (docker --shm-size), "
        "a lower datasets.train.num_worker_per_gpu may help; --auto_resume goes on from the last checkpoint"
    )


def _end_worker(error: Exception, _: Any) -> None:
    """What a queue does when it cannot send."""
    if get_worker_info() is not None:
        print(f"a batch cannot be handed over ({str(error).splitlines()[0]})", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(1)
    raise error


def _no_complaint_of_loaders(unraisable: Any) -> None:
    """What is raised where nobody can catch it: by half a loader that is deleted, above all."""
    if "_MultiProcessingDataLoaderIter" not in repr(unraisable.object):
        sys.__unraisablehook__(unraisable)


def _leave_quietly(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What is not caught: in a thread of a loader process a sign that its parent has gone."""
    if get_worker_info() is None or not isinstance(error, OSError):
        sys.__excepthook__(kind, error, traceback)
