"""The gallery shows what the tests' degradations make of a photograph, and other programs' images beside ours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from mrda_data.degradation import PhotoDegradation
from mrda_inference.upscaler import MODELS
from mrda_utils.errors import OptionError
from scripts import gallery

ROW = gallery.Row("test", "chelsea.png", "clean", 120, 60)


@pytest.fixture
def lr(tmp_path, monkeypatch):
    """The degraded photograph of one row, in a folder."""
    monkeypatch.setattr(gallery, "ROWS", (ROW,))
    gallery.main(["--save-lr", str(tmp_path / "lr")])
    return tmp_path / "lr" / ROW.name


def test_the_degraded_photograph_is_written_for_another_program(lr):
    photograph = skimage.data.chelsea()[:300, :448]
    gt = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None] / 255
    bicubic = PhotoDegradation(scale=4).apply(gt, {}, torch.Generator())[0].permute(1, 2, 0)
    np.testing.assert_allclose(np.asarray(Image.open(lr)), 255 * bicubic.clamp(0, 1), atol=0.51)


def test_a_picture_shows_ours_and_another_program_at_the_same_place(lr, tmp_path):
    other = np.zeros((300, 448, 3), np.uint8)
    other[ROW.top : ROW.top + gallery.SIDE, ROW.left : ROW.left + gallery.SIDE] = 77
    (tmp_path / "sr").mkdir()
    cv2.imwrite(str(tmp_path / "sr" / ROW.name), other)
    gallery.main(["-o", str(tmp_path / "out"), "--sr", f"Gray={tmp_path / 'sr'}"])
    picture = np.asarray(Image.open((tmp_path / "out" / ROW.name).with_suffix(".webp")), np.int16)
    top, step = picture.shape[0] // 2 - gallery.SIDE, gallery.SIDE + 4
    line = [picture[top : top + gallery.SIDE, left : left + gallery.SIDE] for left in range(0, 3 * step, step)]
    assert abs(line[2] - 77).max() <= 4
    part = skimage.data.chelsea()[ROW.top : ROW.top + gallery.SIDE, ROW.left : ROW.left + gallery.SIDE]
    left = (3 + len(MODELS)) % 4 * step  # the last but for LR, bicubic, the other program and ours
    assert abs(picture[-gallery.SIDE :, left : left + gallery.SIDE] - part).mean() < 3  # WebP is not exact
    assert abs(picture[-gallery.SIDE :, left : left + gallery.SIDE] - np.roll(part, 8, 0)).mean() > 6
    bicubic = (
        Image.open(lr)
        .resize((448, 300), Image.Resampling.BICUBIC)
        .crop((ROW.left, ROW.top, ROW.left + gallery.SIDE, ROW.top + gallery.SIDE))
    )
    assert abs(line[1] - np.asarray(bicubic)).mean() < 1.5


@pytest.mark.parametrize("argument", ["Gray=missing", "Gray"])
def test_another_program_that_has_no_folder_is_named(argument, tmp_path):
    with pytest.raises(OptionError, match=f"--sr {argument}"):
        gallery.main(["-o", str(tmp_path), "--sr", argument])


def test_an_image_of_another_size_is_refused(lr, tmp_path):
    with pytest.raises(OptionError, match="75x112 pixels, the photograph has 300x448"):
        gallery.main(["-o", str(tmp_path / "out"), "--sr", f"LR={lr.parent}"])
