"""Mistakes of the user, reported in one line and without a traceback."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from mrda_utils.console import lasting_console

UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
"""Of a path, whoever asks for it: a folder is closed, a name too long, a link leads to itself, a file is no folder."""
_LONGEST_LINE = 2000  # characters of a message; names and values may come from a stranger's file
_LONGEST_END = 500  # of these at the end, where the reason is
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no file name may contain: control characters, line ends, and bytes that are no UTF-8."""


class UserError(ValueError):
    """A mistake that the user can correct; the message names the option or file, the value and what to do."""

    def __str__(self) -> str:
        """The message without control characters, which would reach the terminal, and without endless lines."""
        return "\n".join(_shortened(printable(line)) for line in super().__str__().split("\n"))


class OptionError(UserError):
    """A wrong option file or command line."""


def _shortened(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{line[: _LONGEST_LINE - _LONGEST_END]} ... {line[-_LONGEST_END:]}"


def printable(line: str) -> str:
    """A line without control characters, which a stranger's file may have in its name or data; they are escaped."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), line)


class Stopped(Exception):  # noqa: N818  (no error)
    """An orderly end that a signal asked for; `code` is the exit code, 128 + the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


NOT_DETERMINISTIC = r"\w+ does not have a deterministic implementation|not deterministic because it uses CuBLAS"
OUT_OF_MEMORY = (
    "out of memory; a training needs less with lower datasets.train.tasks_per_gpu, images_per_task or gt_size "
    "(train.accumulation_steps keeps the batch of a step), or in bf16"
)


def run(
    main: Callable[[], None],
    interrupted: str = "interrupted; the last checkpoint is kept, --auto_resume goes on from it",
    out_of_memory: str = OUT_OF_MEMORY,
) -> None:
    """Run an entry script; what a user can correct or asked for ends in one line on stderr, without a traceback.

    Exit codes: 2 for a UserError, a path that cannot be reached or too little memory, 128 + its number for a signal
    (130 Ctrl-C, 143 SIGTERM).
    """
    with lasting_console() as failure:
        with suppress(OSError, AttributeError):  # a name that the console's encoding lacks (Windows' cp1252) is no bug
            sys.stdout.reconfigure(errors="backslashreplace")
        code = 0
        try:
            _run(main, interrupted, out_of_memory)
        except SystemExit as end:
            code = end.code
        if error := failure():
            _end(f"error: standard output cannot be written ({error.strerror})", 2)
        if code:
            sys.exit(code)


def _run(main: Callable[[], None], interrupted: str, out_of_memory: str) -> None:
    try:
        main()
    except UserError as error:
        _end(f"error: {_own_words(error)}", 2)
    except Stopped as end:
        _end(str(end), end.code)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            _end(f"error: {out_of_memory} ({str(error).splitlines()[0] if str(error) else 'MemoryError'})", 2)
        if torch_refuses := re.search(NOT_DETERMINISTIC, str(error)):
            _end(f"error: deterministic: true, but torch says '{torch_refuses[0]}'; set it to false", 2)
        raise
    except OSError as error:
        if error.filename is None or error.errno not in UNREACHABLE:
            raise
        _end(f"error: {error.filename}: cannot be used ({error.strerror})", 2)
    except KeyboardInterrupt:
        _end(interrupted, 130)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short: torch.OutOfMemoryError on CUDA, a plain RuntimeError on the CPU."""
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


def _own_words(error: UserError) -> str:
    """The message; without the traceback that torch puts before it if a loader's worker raised it."""
    text = str(error)
    return text.strip().splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text


def _end(message: str, code: int) -> NoReturn:
    print(*map(printable, message.split("\n")), sep="\n", file=sys.stderr)  # noqa: T201
    sys.exit(code)
