from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from mrda_data.images import ImageError
from mrda_inference.image_file import read_picture
from mrda_inference.image_writer import check_target, write_pixels
from mrda_inference.side_data import SideData
from mrda_utils.errors import UserError
from tests.data.layouts import cmyk_profile

ROOT = Path(__file__).resolve().parents[2]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_again(tmp_path, dtype, suffix, has_alpha, channels):
    if suffix == ".webp" and dtype == np.uint16:
        pytest.skip("WebP has 8 bits")
    if channels == 1 and has_alpha:
        pytest.skip("no encoder has gray with alpha")
    pixels = noise(7, 5, channels + has_alpha, dtype=dtype) // 2 + 1  # WebP forgets hidden colours
    profile = GRAY if channels == 1 and suffix == ".png" else SRGB
    assert write_pixels(pixels, SideData(profile), tmp_path / f"a{suffix}") == []
    back = read_picture(tmp_path / f"a{suffix}")
    colour = pixels if channels == 1 else pixels[..., 2::-1]
    becomes_rgb = channels == 1 and suffix == ".webp"
    np.testing.assert_array_equal(back.colour, colour.repeat(3, 2) if becomes_rgb else colour)
    assert back.colour.dtype == dtype
    assert (back.alpha is not None) == has_alpha
    if has_alpha:
        np.testing.assert_array_equal(back.alpha, pixels[..., 3:])
    assert back.side.profile == profile


def test_jpeg_keeps_the_profile(tmp_path):
    write_pixels(np.full((9, 8, 3), (50, 100, 200), np.uint8), SideData(SRGB), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["icc_profile"] == SRGB
        assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = np.add.outer(np.arange(24) * 3, np.arange(40) * 2)
    Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], 2).astype(np.uint8)).save(path, exif=exif, lossless=True)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    picture = read_picture(path)
    assert picture.colour.shape == expected.shape
    assert np.abs(picture.colour.astype(int) - expected).max() <= 3  # two JPEG decoders


def pillow(mode):
    image = Image.fromarray(noise(9, 8, 4), "RGBA")
    return image.convert("RGB").quantize(16) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "options", "channels", "has_alpha"),
    [
        ("L", ".png", {}, 1, False),
        ("1", ".png", {}, 1, False),
        ("LA", ".png", {}, 1, True),
        ("RGB", ".png", {}, 3, False),
        ("RGB", ".bmp", {}, 3, False),
        ("RGB", ".tif", {}, 3, False),
        ("RGB", ".ppm", {}, 3, False),
        ("RGBA", ".png", {}, 3, True),
        ("RGBA", ".webp", {"lossless": True, "exact": True}, 3, True),
        ("RGBA", ".tif", {}, 3, True),
        ("LA", ".tif", {}, 1, True),
        ("L", ".tif", {}, 1, False),
        ("1", ".tif", {}, 1, False),
        ("P", ".png", {}, 3, False),
        ("P", ".png", {"transparency": 3}, 3, True),
        ("P", ".tif", {}, 3, False),
        ("CMYK", ".tif", {}, 3, False),
    ],
)
def test_every_usual_kind_of_file_is_read_as_pillow_does(tmp_path, mode, suffix, options, channels, has_alpha):
    path = tmp_path / f"a{suffix}"
    pillow(mode).save(path, **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGBA"))
    picture = read_picture(path)
    assert picture.colour.shape[2] == channels
    np.testing.assert_array_equal(np.broadcast_to(picture.colour, (9, 8, 3)), expected[..., :3])
    assert (picture.alpha is not None) == has_alpha
    if has_alpha:
        np.testing.assert_array_equal(picture.alpha[..., 0], expected[..., 3])


def test_sixteen_bits_of_a_tiff_are_kept(tmp_path):
    image = noise(6, 5, 3, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), image[..., ::-1])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").colour, image)


def test_a_profile_that_does_not_fit_the_output_is_left_out(tmp_path):
    notes = write_pixels(noise(4, 4, 3), SideData(SRGB[:16] + b"CMYK" + SRGB[20:]), tmp_path / "a.png")
    assert notes == ["its colour profile is for CMYK and was left out"]
    assert read_picture(tmp_path / "a.png").side.profile is None


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_the_profile_of_cmyk_is_used_up(tmp_path, suffix):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / f"a{suffix}", icc_profile=cmyk_profile())
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.side.profile is None
    assert picture.notes == ()


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def write_useless(kind, path):
    if kind == "bomb":
        path.write_bytes(png_header(30_000, 30_000))
    elif kind == "large":
        path.write_bytes(png_header(12_000, 12_000))
    elif kind == "text":
        path.write_text("hello")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        Image.fromarray(noise(64, 64, 3)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "truncated tiff":
        Image.fromarray(noise(64, 64, 3)).save(path, "TIFF", compression="tiff_lzw")
        path.write_bytes(path.read_bytes()[:-9000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pages":
        page = Image.fromarray(noise(8, 8, 3))
        page.save(path, "TIFF", save_all=True, append_images=[page, page])
    elif kind == "lab":
        Image.fromarray(noise(8, 8, 3)).convert("LAB").save(path, "TIFF")
    elif kind == "float":
        Image.fromarray(noise(8, 8).astype(np.float32)).save(path, "TIFF")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bomb", "more than 134,217,728 pixels"),
        ("large", "more than 134,217,728 pixels"),
        ("text", "damaged or no PNG, JPEG"),
        ("empty", "damaged or no PNG, JPEG"),
        ("truncated", "cannot be decoded"),
        ("truncated tiff", "cannot be decoded"),
        ("folder", "a folder, no image file"),
        ("missing", "No such file"),
        ("pages", "a TIFF of 3 pictures"),
        ("lab", "colours CIELAB"),
        ("float", "32-bit ieeefp samples"),
    ],
)
def test_a_useless_file_is_named_in_one_line(tmp_path, kind, reason):
    write_useless(kind, tmp_path / "a.png")
    with pytest.raises(ImageError, match=rf"a\.png: .*{reason}") as info:
        read_picture(tmp_path / "a.png")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("name", "size", "dtype", "has_alpha", "reason"),
    [
        ("a.jpg", (2, 2), np.uint16, False, "holds no 16 bits"),
        ("a.webp", (2, 2), np.uint16, False, "holds no 16 bits"),
        ("a.jpg", (2, 2), np.uint8, True, "holds no alpha"),
        ("a.webp", (2, 20_000), np.uint8, False, "20000 pixels, .webp holds 16383 a side; choose png"),
    ],
)
def test_a_format_that_cannot_hold_the_picture_is_named(tmp_path, name, size, dtype, has_alpha, reason):
    with pytest.raises(ImageError, match=reason):
        check_target(tmp_path / name, size, np.dtype(dtype), has_alpha)
    check_target(tmp_path / "a.png", size, np.dtype(dtype), has_alpha)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_png_is_no_advice_for_what_it_cannot_hold(tmp_path, suffix):
    with pytest.raises(ImageError, match=r"1111111 pixels, .* a side; ask for a smaller picture"):
        check_target(tmp_path / f"a{suffix}", (2, 1_111_111), np.dtype(np.uint8), False)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match=r"a\.png: cannot be written"):
        write_pixels(noise(2, 2, 3), SideData(), tmp_path / "out" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="file systems of other systems take UTF-8 alone")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_folder_whose_name_is_no_utf_8_takes_pictures(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"lat\xe9") / f"a{suffix}"
    assert write_pixels(noise(9, 8, 3), SideData(), path) == []
    with Image.open(path) as image:
        assert image.size == (8, 9)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_full_disk_is_told_by_us_alone(tmp_path, suffix):
    """The limit on the size of a file stands for it; libpng has a line of its own for a file that takes no more."""
    script = f"""
import resource, numpy as np, sys
from pathlib import Path
from mrda_inference.image_writer import write_pixels
from mrda_inference.side_data import SideData
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
try:
    write_pixels(pixels, SideData(), Path("a{suffix}"))
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert done.stderr == f"WriteError a{suffix}: cannot be written (File too large)\n"
    assert not list(tmp_path.iterdir())
