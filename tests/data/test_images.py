from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from mrda_data.images import ImageError, read_rgb8

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (20, 30, 1), dtype=np.uint8)


def as_rgb(image):
    return np.array(image.convert("RGB"))


def files():
    gray, palette = Image.fromarray(RGB).convert("L"), Image.fromarray(RGB).quantize(16)
    return {
        "rgb": (Image.fromarray(RGB), {}, RGB),
        "rgba": (Image.fromarray(np.dstack([RGB, ALPHA])), {}, RGB),
        "gray": (gray, {}, as_rgb(gray)),
        "gray alpha": (Image.fromarray(np.dstack([np.array(gray), ALPHA])), {}, as_rgb(gray)),
        "1 bit": (gray.convert("1"), {}, as_rgb(gray.convert("1"))),
        "palette": (palette, {}, as_rgb(palette)),
        "palette with transparency": (palette, {"transparency": 0}, as_rgb(palette)),
    }


@pytest.mark.parametrize("kind", list(files()))
def test_every_kind_of_png_becomes_rgb8(tmp_path, kind):
    image, arguments, expected = files()[kind]
    image.save(tmp_path / "a.png", **arguments)
    decoded = read_rgb8(tmp_path / "a.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_16_bits_are_scaled_and_rounded(tmp_path, shape):
    image = RNG.integers(0, 65536, shape, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    colour = image[..., 2::-1] if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
    np.testing.assert_array_equal(read_rgb8(tmp_path / "a.png"), np.rint(colour * (255 / 65535)))


def test_names_with_spaces_and_unicode(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "ein Ätna 山.png")
    np.testing.assert_array_equal(read_rgb8(tmp_path / "ein Ätna 山.png"), RGB)


def write_useless(kind, path):
    Image.fromarray(RGB).save(path, format="JPEG" if "jpeg" in kind else "PNG")
    data = path.read_bytes()
    content = {"empty": b"", "text": b"hello", "truncated png": data[:-500], "truncated jpeg": data[: len(data) // 2]}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "float":
        cv2.imwrite(str(path.with_suffix(".tiff")), RGB.astype(np.float32))
        path.with_suffix(".tiff").rename(path)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated png", "truncated jpeg", "missing", "folder", "float"])
def test_a_useless_file_is_named(tmp_path, kind):
    path = tmp_path / "a.png"
    write_useless(kind, path)
    with pytest.raises(ImageError, match=r"a\.png: "):
        read_rgb8(path)
