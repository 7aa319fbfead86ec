"""Memory of this machine."""

from __future__ import annotations

import re
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # of a container, whose limit /proc/meminfo does not know


def available_memory() -> int | None:
    """Bytes that can be had without swapping, in a container within its limit; None where Linux does not tell."""
    table = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text()) if table.is_file() else None
    if not found:
        return None
    try:
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        files = re.search(r"^inactive_file (\d+)", (CGROUP / "memory.stat").read_text(), re.MULTILINE)
        return max(0, min(int(found[1]) * 1024, limit - used + (int(files[1]) if files else 0)))
    except (OSError, ValueError):  # no container, or no limit: "max"
        return int(found[1]) * 1024
