"""What happened to a run, for scripts to read: `events.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
import time
from pathlib import Path

from mrda_utils.errors import UserError


def record(folder: Path, event: str, iteration: int, **fields: object) -> None:
    """Append {"time", "event", "iter", ...} to `<folder>/events.jsonl`.

    Events: start, resume, fallback (a damaged state was passed over), validation, save, skip (steps without finite
    gradients), stop (a signal) and end.

    Raises:
        UserError: the file cannot be written.
    """
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, "iter": iteration, **fields})
    path = folder / "events.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
