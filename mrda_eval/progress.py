"""Progress: a bar on a terminal, a line per minute elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

INTERVAL = 60  # seconds between two lines
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed} gone, {remaining} left"


class _Lines:
    """What tqdm writes to in the place of a terminal: a line where it would redraw the bar."""

    def write(self, text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr)  # noqa: T201

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(about: str, shown: bool, items: Iterable | None = None, **options: Any) -> tqdm:
    """Progress through `items`, or of what calls `update`.

    Args:
        about: what is in progress.
        shown: False for nothing at all, as in all processes but one.
        items: to iterate over.
        options: of tqdm, such as `total`.
    """
    if not sys.stderr.isatty():
        lines = {"file": _Lines(), "mininterval": INTERVAL, "delay": INTERVAL, "miniters": 1, "bar_format": LINE}
        options = {**lines, **options}
    return tqdm(items, about, disable=not shown, **options)
