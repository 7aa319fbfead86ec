"""What a timing is worth: the CPU, its instruction sets, and the rate of its matrix products."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def describe(device: str = "cpu") -> dict:
    """CPU name, instruction sets that matter here, threads, torch version; a GPU's name where it computes."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    flags = set(re.search(r"flags\s*: (.*)", text)[1].split()) if "flags" in text else set()
    return {
        "cpu": name[1] if name else "unknown",
        "instruction_sets": [flag for flag in INSTRUCTION_SETS if flag in flags],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **({} if device == "cpu" else {"device": torch.cuda.get_device_name(device)}),
    }


def interleaved(functions: dict, repeats: int) -> dict[str, float]:
    """Median seconds of each function; after a warm-up they take turns, so that drift hits all alike."""
    for function in functions.values():
        function()
    wait()
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def wait() -> None:
    """Until a GPU has finished what it was asked."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def gemm(dtype: torch.dtype, size: int = 2048) -> tuple[callable, int]:
    """A square matrix product and its multiply-adds: the rate that nothing on this machine beats by much."""
    a, b = torch.randn(2, size, size).to(dtype)
    return lambda: a @ b, size**3


def print_rows(rows: list[dict]) -> None:
    """A table, numbers to three digits."""
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"), flush=True)  # noqa: T201


def publish(rows: list[dict], path: Path | None, device: str = "cpu") -> None:
    """Print the machine and the table; write both to `path` as JSON, if one is given."""
    machine = describe(device)
    print(machine)  # noqa: T201
    print_rows(rows)
    if path:
        path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
