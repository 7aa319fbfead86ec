"""Ctrl-C, SIGTERM and SIGHUP (of a closed terminal) ask a training to save and end; a second Ctrl-C ends it at once."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

ALWAYS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []  # signals are the process's, so is this


def stop_requested() -> bool:
    """Whether a signal came since `noted_signals` began."""
    return bool(_received)


def requested_by() -> signal.Signals:
    """The signal that came first; SIGTERM where another process got it."""
    return signal.Signals(_received[0] if _received else signal.SIGTERM)


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _received:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one need not wait for Python
        raise KeyboardInterrupt
    told_by_parent = multiprocessing.parent_process() is not None  # of `launch`
    if number == signal.SIGINT and os.environ.get("RANK", "0") == "0" and not told_by_parent:
        os.write(
            2, b"\nstopping after this iteration or image; Ctrl-C again ends at once\n"
        )  # print is not safe in here
    _received.append(number)


@contextmanager
def noted_signals() -> Iterator[None]:
    """Note SIGNALS instead of dying of them; a second Ctrl-C takes the loader's workers with it.

    Under nohup SIGHUP stays ignored.
    """
    _received.clear()
    noted = [number for number in SIGNALS if number in ALWAYS or signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, _note) for number in noted}
    try:
        yield
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.kill()  # Python's exit asks by SIGTERM and waits; one that has just begun would only note it
        raise
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


LINUX = sys.platform == "linux"
START_METHOD = "fork" if LINUX else None
"""Of the loader's workers; None for Python's own. The forkserver that it takes from 3.14 on would be their parent, and
the kernel would not kill the workers of a killed training."""


def leave_signals_to_parent(worker: int) -> None:
    """For the data loader's workers: Ctrl-C and torchrun signal whole process groups, but the parent decides here.

    A worker whose parent is gone is killed by the kernel (Linux) or ends by itself (elsewhere, by torch).
    """
    if hasattr(os, "setsid"):
        os.setsid()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Windows has no sessions
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
