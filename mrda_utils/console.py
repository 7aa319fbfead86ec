"""Standard output and error that survive the loss of their reader: a closed pipe, a full disk, a closed terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class _Lasting:
    """A stream; once it cannot be written, what it is given goes nowhere, and `failure` says why."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.failure = stream, None

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action: Callable[..., Any], *args: str) -> None:
        try:
            action(*args)
        except OSError as error:
            self.failure = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())  # for what is in buffers, and for libraries
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def lasting_console() -> Iterator[Callable[[], OSError | None]]:
    """Let a program go on when nobody can read what it prints.

    Yields a function that returns why standard output could not be written, or None; a closed pipe is no failure, since
    `| head` wants no more.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would be standard output
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None or sys.stderr is None:
        yield lambda: None
        return
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = output, errors = _Lasting(sys.stdout), _Lasting(sys.stderr)

    def failure() -> OSError | None:
        output.flush()
        return None if isinstance(output.failure, BrokenPipeError) else output.failure

    try:
        yield failure
    finally:
        for stream in (output, errors):
            stream.flush()
        sys.stdout, sys.stderr = streams
