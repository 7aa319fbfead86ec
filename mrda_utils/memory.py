"""Memory of this machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None

CGROUP = Path("/sys/fs/cgroup")  # of a container, whose limit /proc/meminfo does not know


def available_memory() -> int | None:
    """Bytes available without swapping, in a container within its limit; None where Linux does not report it."""
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


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes; None where Python does not report it (Windows)."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_memory(device: torch.device) -> int | None:
    """Peak memory so far in MiB: of the GPU, or this process's resident one, see `peak_memory`."""
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return None if peak is None else peak // 2**20
