from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mrda_data.degradation.kernels import gaussian_kernel
from mrda_utils.errors import UserError
from scripts.draw_kernels import main


def draw(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["draw_kernels.py", *map(str, arguments)])
    main()


def test_it_draws_every_kernel_once_and_says_what_is_known_of_them(monkeypatch, tmp_path, capsys):
    draw(monkeypatch, "aniso9_mrda", "-o", tmp_path / "k.png")
    assert "estimate" in capsys.readouterr().out
    image = np.array(Image.open(tmp_path / "k.png"))
    assert image.shape == (22 + 168, 9 * 172 - 4, 3)
    kernel = gaussian_kernel(3.5, 1.5, np.radians(20)).numpy()
    drawn = image[22 + 4 :: 8, 172 + 4 : 172 + 168 : 8, 0]  # middle of each enlarged pixel
    np.testing.assert_allclose(drawn, 255 * kernel / kernel.max(), atol=0.51)


def test_the_scale_chooses_the_kernels(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    images = []
    for scale in (2, 4):
        draw(monkeypatch, "gaussian8", "--scale", scale)
        images.append((tmp_path / "gaussian8.png").read_bytes())
    assert images[0] != images[1]


@pytest.mark.parametrize("name", ["nowhere/k.png", "k.foo"])
def test_a_file_that_cannot_be_written_is_named(monkeypatch, tmp_path, name):
    with pytest.raises(UserError, match=rf"--output .*{name}: cannot be written"):
        draw(monkeypatch, "width", "-o", tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_protocol_without_kernels_is_no_choice(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        draw(monkeypatch, "photo")
    assert "invalid choice: 'photo'" in capsys.readouterr().err
