"""What is said of a machine before anything is installed on it."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import pytest

from scripts import make_environment


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that lacks nothing, to take something away from; `said()` is how the check of it ends."""

    def no_download(*args, **kwargs):
        raise AssertionError("something was run")

    monkeypatch.setattr(sys, "argv", ["make_environment.py", str(tmp_path / "environment")])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**12))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", no_download)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)

    def said():
        with pytest.raises(SystemExit) as end:
            make_environment.main()
        return end.value.code

    return said


def test_a_machine_that_lacks_nothing_is_installed_on(machine):
    with pytest.raises(AssertionError, match="something was run"):
        make_environment.main()


def test_all_that_is_missing_is_said_at_once(machine, monkeypatch, tmp_path):
    def none(name):
        raise OSError(name)

    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", none)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4.25e9))
    assert machine().splitlines() == [
        "this machine lacks",
        "  Python 3.10 to 3.14, this is 3.15: make demo PYTHON=python3.12",
        "  Python's venv and ensurepip",
        "  libGL.so.1, which OpenCV needs",
        "  libgthread-2.0.so.0, which OpenCV needs",
        f"  13 GB of disk, {tmp_path} has 4.2; docs/installation.md has smaller ways",
        "apt-get install python3.15-venv libgl1 libglib2.0-0",
    ]


def test_less_disk_will_do_for_torch_without_cuda(machine, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4.25e9))
    assert "13 GB of disk" in machine()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://example.org/whl/cpu")
    with pytest.raises(AssertionError, match="something was run"):
        make_environment.main()


@pytest.mark.parametrize(
    ("system", "processor", "soabi", "what"),
    [
        ("darwin", "x86_64", "", "a Mac with Apple's processor"),
        ("win32", "ARM64", "", "Windows on an x86-64 processor"),
        ("linux", "x86_64", "cpython-312-x86_64-linux-musl", "a Linux with glibc"),
    ],
)
def test_what_cannot_be_mended_is_named(machine, monkeypatch, system, processor, soabi, what):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: soabi)
    assert machine().splitlines()[1].startswith(f"  {what}")
