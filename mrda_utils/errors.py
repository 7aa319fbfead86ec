"""Mistakes of the user, told in one line and without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user can mend; the message names the option or file, the value and what to do."""


def run(main: Callable[[], None]) -> None:
    """Run an entry script; a UserError ends it with its message and exit code 2."""
    try:
        main()
    except UserError as error:
        sys.exit(_fail(error))


def _fail(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return 2
