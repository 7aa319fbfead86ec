"""What the page says."""

from __future__ import annotations

import re

# a whole word of small letters: names of files keep their dashes
OPTION = re.compile(r"(?<![^\s(])--(?=[a-z]+(?:-[a-z]+)*(?![^\s,;:)]))")


def of_page(message: str) -> str:
    """A message of mrda-upscale in the page's words, whose options have no dashes: `--quality 0` is `quality 0`."""
    return OPTION.sub("", message)


def duration(seconds: float) -> str:
    """A time in the precision that an estimate has: "8 s", "40 s", "3 min", "1.5 h"."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 100:
        return f"{round(seconds, -1):.0f} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def waiting(place: int, seconds: float | None) -> str:
    """Of a photograph with `place` others before it, which take so long."""
    before = f"{place} before this one" if place else "next"
    return f"waiting: {before}" + (f", begins in about {duration(seconds)}" if seconds is not None else "")


def working(done: int, total: int, seconds: float | None) -> str:
    """Of a photograph of which `done` tiles are restored, with the seconds that are left."""
    if total == 0:
        return "reading"
    if done == total:
        return "writing the file"
    left = f", {duration(seconds)} left" if seconds is not None else ""
    return f"tile {done + 1} of {total}{left}"


def listening(url: str, host: str, is_open: bool, has_password: bool) -> list[str]:
    """The lines that the program prints once the page is there.

    Args:
        url: of the page.
        host: what it listens on.
        is_open: whether other machines reach that.
        has_password: whether it asks for one.
    """
    lines = [f"{url}  (Ctrl-C ends it)"]
    if is_open:
        lines.append(
            f"--host {host}: everyone whose machine reaches this one can open the page, have photographs worked on and "
            "use up to the page's share of the disk; what is sent is not encrypted"
        )
        lines.append(
            "--auth asks for a password; it travels without encryption too, so trust the network or put TLS before it"
            if has_password
            else "--auth USER:PASSWORD would ask for a password"
        )
    return lines
