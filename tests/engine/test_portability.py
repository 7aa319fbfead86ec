"""What Windows and macOS lack or do in another way; simulated, since the tests run on Linux as well."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from mrda_inference import image_writer, tiling, upscaler
from mrda_inference.side_data import SideData
from mrda_options.options import OptionError, validate
from mrda_pipeline import launch
from mrda_utils import files, memory
from mrda_utils.errors import UserError
from tests.engine.conftest import ROOT, command, events, run_folder
from tests.model.conftest import stage_options


def test_a_training_runs_with_what_windows_has(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    opt = stage_options("mln_bicubic", tmp_path, train__total_iter=3, num_processes="auto")
    opt["datasets"]["train"]["num_worker_per_gpu"] = 1
    done = subprocess.run(
        command(opt, script=ROOT / "tests/engine/windows_train.py"), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(e["event"], e["memory_mib"]) for e in events(run_folder(opt)) if e["event"] == "save"] == [("save", None)]
    assert (run_folder(opt) / "training_states/3.state").is_file()


def test_a_file_is_written_where_folders_cannot_be_opened(tmp_path, monkeypatch):
    open_file = os.open

    def open_no_folder(path, *args, **kwargs):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return open_file(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_no_folder)
    files.write_text("text", tmp_path / "file")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "text")]


def test_that_folders_are_not_flushed_is_told_once(tmp_path, monkeypatch, capsys):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    monkeypatch.setattr(files, "_not_flushed", [])
    for name in ("a", "b"):
        files.write_text(name, tmp_path / name / "file")
    assert [path.read_text() for path in sorted(tmp_path.glob("*/file"))] == ["a", "b"]
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {tmp_path / 'a'}: its file system does not flush folders")
    assert told.count("\n") == 1


def test_a_worker_ignores_ctrl_c_where_there_are_no_sessions():
    program = """
import multiprocessing, os, signal, sys
del os.setsid
sys.platform = "win32"
from mrda_pipeline.signals import leave_signals_to_parent
leave_signals_to_parent(0)
signal.raise_signal(signal.SIGINT)
"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_opencv_is_given_no_path_on_windows(tmp_path, monkeypatch, suffix):
    """It would open none that the system's code page lacks; the file is the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    side = SideData(xmp=b"<x:xmpmeta/>")
    image_writer.write_pixels(pixels, side, tmp_path / f"here{suffix}")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(cv2, "imwriteWithMetadata")
    image_writer.write_pixels(pixels, side, tmp_path / f"\u732b{suffix}")
    assert (tmp_path / f"\u732b{suffix}").read_bytes() == (tmp_path / f"here{suffix}").read_bytes()


def test_windows_starts_no_processes(monkeypatch):
    opt = {"num_processes": "auto", "datasets": {"train": {"tasks_per_gpu": 4}}}
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(launch, "cores", lambda: 4)
    assert launch.processes_to_start(opt, torch.device("cpu")) == 4
    monkeypatch.setattr(sys, "platform", "win32")
    assert launch.processes_to_start(opt, torch.device("cpu")) == 1
    with pytest.raises(UserError, match="num_processes: 2, but Windows does not start several; use 1"):
        launch.processes_to_start({**opt, "num_processes": 2}, torch.device("cpu"))


def test_peak_memory_is_in_bytes_whatever_the_system_counts_in(monkeypatch):
    status = Path("/proc/self/status")
    if status.is_file():
        kilobytes = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
        assert memory.peak_memory() == pytest.approx(kilobytes * 1024, rel=0.05)
    monkeypatch.setattr(
        memory, "resource", SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=5))
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.peak_memory() == 5
    monkeypatch.setattr(memory, "resource", None)
    assert memory.peak_memory() is None


def test_a_cache_needs_a_home_or_a_name(tmp_path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert files.user_cache() == tmp_path / "cache/mrda"
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(UserError, match=r"^HOME: not set.*name a folder in XDG_CACHE_HOME$"):
        files.user_cache()


# ------------------------------------------------------------------------------------------------------------- macOS
def test_auto_is_mps_where_there_is_no_cuda(monkeypatch):
    tried = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: tried.append(device) or torch.empty(1))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert upscaler.find_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert upscaler.find_device("auto").type == "cuda"
    assert [device.type for device in tried] == ["mps", "cuda"]


def test_a_copy_from_mps_has_arrived_when_it_is_there():
    """There is no event to wait for, so a copy beside the computation could be read too early."""
    here = torch.ones(1)
    tensor = SimpleNamespace(device=torch.device("mps"), cpu=lambda: here)
    assert tiling.fetched(tensor)() is here


def test_training_on_mps_is_refused_with_the_reason(tmp_path):
    opt = stage_options("student", tmp_path, device="mps")
    with pytest.raises(OptionError, match=r"device: 'mps': it upscales but does not train: torch's fused Adam"):
        validate(opt, True, "x.yml")
