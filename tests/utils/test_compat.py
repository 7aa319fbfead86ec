"""Each shim stands in for something that is really gone; where one fails, it is no longer needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mrda_utils import compat


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_basicsr_needs_functional_tensor_and_gets_it():
    assert "functional_tensor" in run("import basicsr").stderr, "torchvision has it again: remove the shim"
    assert run("import mrda_utils.compat, basicsr").returncode == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="distutils is part of this Python")
def test_basicsr_needs_distutils_and_gets_it(monkeypatch):
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")  # setuptools lends its own otherwise
    assert run("import distutils").returncode != 0, "distutils is back: remove the shim"
    assert run("import mrda_utils.compat, basicsr").returncode == 0


def test_installing_twice_changes_nothing():
    before = {name: id(module) for name, module in sys.modules.items()}
    compat.install()
    assert {name: id(module) for name, module in sys.modules.items()} == before


def test_a_real_module_is_kept():
    assert not compat._is_missing("scipy.ndimage")
    assert not compat._is_missing("torchvision.transforms.functional_tensor")  # once installed
    assert compat._is_missing("torchvision.transforms.nowhere")


@pytest.mark.parametrize(("newer", "older"), [("0.10.1", "0.9.0"), ("0.29.1+cpu", "0.29.1"), ("1.0", "0.99")])
def test_loose_versions_compare_by_number(newer, older):
    assert compat._LooseVersion(newer) >= compat._LooseVersion(older)
    if newer != older + "+cpu":
        assert not compat._LooseVersion(older) >= compat._LooseVersion(newer)
