"""Mistakes of the user, told in one line and without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(ValueError):
    """Something the user can mend; the message names the option or file, the value and what to do."""


def run(main: Callable[[], None]) -> None:
    """Run an entry script; a UserError ends it with its message and exit code 2, Ctrl-C with one line and 130."""
    try:
        main()
    except UserError as error:
        _end(f"error: {error}", 2)
    except KeyboardInterrupt:
        _end("interrupted; the last checkpoint is kept, --auto_resume goes on from it", 130)


def _end(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)
