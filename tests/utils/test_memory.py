from __future__ import annotations

import re
from pathlib import Path

import pytest

from mrda_utils import memory

MIB = 2**20


@pytest.mark.parametrize(("limit", "expected"), [(64 * MIB, 64 - 40 + 8), (32 * MIB, 0), ("max", None), (2**60, None)])
def test_the_limit_of_a_container_counts_without_files_that_can_be_dropped(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    files = {"memory.max": limit, "memory.current": 40 * MIB, "memory.stat": f"anon 1\ninactive_file {8 * MIB}\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(f"{content}\n")
    free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    found = memory.available_memory()
    if expected is None:
        assert found == pytest.approx(free, rel=0.2)
    else:
        assert found == max(0, expected * MIB)
