"""What happened to a run, for scripts to read: `events.jsonl`, one JSON object per line.

A value that is not finite, such as the PSNR of identical images, is a text.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from mrda_utils.files import append_line, json_value


def record(folder: Path, event: str, iteration: int, **fields: object) -> None:
    """Append {"time", "event", "iter", ...} to `<folder>/events.jsonl`.

    Events: start, resume, changed (an option or a thing that the run depends on, since the state was written), fallback
    (a damaged state was skipped), log (what a line of the log has, and more), validation, save, skip (steps without
    finite gradients), stop (a signal) and end.

    Raises:
        UserError: the file cannot be written.
    """
    content = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, "iter": iteration, **fields}
    line = json.dumps({name: json_value(value) for name, value in content.items()}, allow_nan=False)
    append_line(line, folder / "events.jsonl")
