from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mrda_data.images import ImageError
from mrda_utils.errors import OptionError, UserError

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "options/demo/train_mln_bicubic_x4.yml"


@pytest.fixture(scope="module")
def preview():
    return runpy.run_path(str(ROOT / "scripts/preview_degradation.py"))["main"]


@pytest.fixture
def option_file(tmp_path):
    def write(kind):
        options = {
            "bicubic": {},
            "isotropic": {"sigma": [0.2, 4.0]},
            "anisotropic": {"sigma_x": [0.2, 4.0], "sigma_y": [0.2, 4.0], "noise_sigma_255": [0.0, 25.0]},
            "realesrgan": {},
        }[kind]
        opt = yaml.safe_load(STAGE.read_text().replace("1e-", "1.0e-"))
        opt["degradation"] = {"type": kind, **options}
        path = tmp_path / f"{kind}.yml"
        path.write_text(yaml.safe_dump(opt))
        return str(path)

    return write


@pytest.mark.parametrize("kind", ["bicubic", "isotropic", "anisotropic", "realesrgan"])
def test_a_tile_for_the_ground_truth_and_each_task(preview, option_file, tmp_path, kind):
    preview(["-opt", option_file(kind), "-o", str(tmp_path / "grid.png"), "--tasks", "2"])
    grid = cv2.imread(str(tmp_path / "grid.png"))
    assert grid.shape[1] == 8 + 3 * (256 + 8)
    tiles = [grid[8:264, 8 + 264 * n : 264 + 264 * n].astype(float) for n in range(3)]
    for tile in tiles[1:]:
        assert 0 < np.abs(tile - tiles[0]).mean() < 60  # degraded, but the same photograph
    assert np.array_equal(tiles[1], tiles[2]) == (kind == "bicubic")


def test_the_seed_decides(preview, option_file, tmp_path):
    options = option_file("realesrgan")
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    pictures = []
    for seed in ("1", "1", "2"):
        preview(["-opt", options, "-i", str(photo), "-o", str(tmp_path / "x.png"), "--tasks", "1", "--seed", seed])
        pictures.append((tmp_path / "x.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (["-o", "grid.jpg"], OptionError, r"-o grid\.jpg: must end in \.png"),
        (["-o", "x.png", "--tasks", "0"], OptionError, "--tasks 0: must be at least 1"),
        (["-o", "x.png", "--seed", "-1"], OptionError, "--seed -1: must be at least 0"),
        (["-o", "x.png", "-i", "none.png"], ImageError, r"none\.png: cannot be read"),
        (["-o", "x.png", "-i", "tiny.png"], ImageError, r"tiny\.png: image of 8x8 is too small for a 21x21 kernel"),
        (["-o", "none/x.png", "--tasks", "1"], UserError, r"none/x\.png: cannot be written"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    preview, option_file, tmp_path, monkeypatch, flags, error, message
):
    options = option_file("isotropic")
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("tiny.png", np.zeros((8, 8, 3), np.uint8))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        preview(["-opt", options, *flags])
    assert sorted(tmp_path.iterdir()) == before
