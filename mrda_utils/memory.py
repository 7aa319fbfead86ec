"""Memory of this machine."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import torch


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where Linux does not tell."""
    table = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", table.read_text()) if table.is_file() else None
    return int(found[1]) * 1024 if found else None


def peak_memory(device: torch.device) -> int:
    """Peak memory so far in MiB: of the GPU, or this process's resident one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
