"""A folder of photographs and the program that upscales them, with the weights of a toy network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_inference.command_line import upscale_files

TOY = {"num_feat": 6, "num_block": 1, "den_feat": 4, "global_residual": True}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working directory with two photographs and the weights of a toy network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save("photos/a.png")
    Image.fromarray(rng.integers(0, 256, (8, 10), dtype=np.uint8)).save("photos/sub/b.png")
    save_file(MRDANet(**TOY).state_dict(), "toy.safetensors")
    return tmp_path


def upscaled(*arguments):
    return upscale_files(["--weights", "toy.safetensors", "--device", "cpu", *arguments])


def outputs(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())
