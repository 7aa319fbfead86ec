"""train.py and test.py as processes: started, signalled, killed, run as two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

from mrda_utils import checkpoint
from tests.model.conftest import ROOT

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def command(opt: dict, *flags: str, processes: int = 1, script: Path = ROOT / "train.py") -> list[str]:
    """Command line of `script` on these options."""
    folder = Path(opt["path"].get("experiments_root") or opt["path"]["results_root"])
    folder.mkdir(parents=True, exist_ok=True)
    option_file = folder / f"options_{opt['name']}.yml"
    option_file.write_text(yaml.safe_dump(opt))
    return [sys.executable, *(TORCHRUN if processes == 2 else ()), str(script), "-opt", str(option_file), *flags]


def finish(opt: dict, *flags: str, processes: int = 1, script: Path = ROOT / "train.py") -> str:
    """Run to the end, which must be a good one; return stdout."""
    done = subprocess.run(
        command(opt, *flags, processes=processes, script=script), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_folder(opt: dict) -> Path:
    """Folder of a training's options."""
    return Path(opt["path"]["experiments_root"]) / opt["name"]


def events(run: Path) -> list[dict]:
    """Lines of a run's events.jsonl."""
    path = run / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def start(
    opt: dict, *flags: str, processes: int = 1, saves: int = 1, script: Path = ROOT / "train.py"
) -> subprocess.Popen:
    """Start a training in a process group of its own and wait until it has saved."""
    process = subprocess.Popen(
        command(opt, *flags, processes=processes, script=script),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while sum(event["event"] == "save" for event in events(run_folder(opt))) < saves:
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.02)
    return process


def end(process: subprocess.Popen, number: int | None = None) -> tuple[int, str]:
    """Send a signal, wait; return exit code and stderr."""
    if number is not None:
        process.send_signal(number)
    try:
        _, stderr = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:  # nothing goes on computing beside the tests that follow
        leads_group = os.getpgid(process.pid) == process.pid
        (os.killpg if leads_group else os.kill)(process.pid, signal.SIGKILL)
        raise
    return process.returncode, stderr


def alive(process: subprocess.Popen) -> list[str]:
    """Command lines of what is left of the process's session."""
    left = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) == process.pid or str(process.args[-1]) in (entry / "cmdline").read_text():
                left.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in left if line]


def same_weights(run: Path, other: Path, name: str = "net_g_latest.pth") -> bool:
    """Whether two runs ended with the same weights, bit for bit."""
    a, b = (checkpoint.load(folder / "models" / name) for folder in (run, other))
    return all(torch.equal(a[key][name], b[key][name]) for key in ("params", "params_ema") for name in a[key])


__all__ = ["alive", "command", "end", "events", "finish", "run_folder", "same_weights", "signal", "start"]
