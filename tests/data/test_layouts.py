"""Every layout that files of photographs have is read as it was written by another library, or refused by its name."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tifffile import TiffFile

from mrda_data.images import ImageError, decode, decode_rgb8, image_size
from tests.data.layouts import (
    bmp,
    bmps,
    cmyk_profile,
    delta_bmp,
    hand_tiff,
    jpegs_and_webps,
    noise,
    pillow,
    pngs,
    pnms,
    tiff,
    tiffs,
)

SHAPES = [(7, 5), (33, 18), (1, 1)]


CONTAINERS = {"TIFF": tiffs, "PNG": pngs, "PNM": pnms, "BMP": bmps, "JPEG and WebP": jpegs_and_webps}
LAYOUTS = [(container, case[0]) for container, cases in CONTAINERS.items() for case in cases((3, 4))]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "TIFF of 16 bits"])
def test_cmyk_is_converted_by_its_profile(kind):
    ink = np.zeros((8, 16, 4), np.uint8)
    ink[:, 8:, 0] = 255
    if kind == "JPEG":
        file = io.BytesIO()
        Image.fromarray(ink, "CMYK").save(file, "JPEG", quality=100, icc_profile=cmyk_profile())
        data = file.getvalue()
    else:
        values = ink if kind == "TIFF" else ink.astype(np.uint16) * 257
        data = tiff(values, photometric="separated", iccprofile=cmyk_profile())
    pixels = decode(np.frombuffer(data, np.uint8), "x")
    assert pixels.notes == ()
    values = pixels.colour / np.iinfo(pixels.colour.dtype).max
    np.testing.assert_allclose(values[:, :8], 1, atol=0.005)
    luminance = ((50 + 16) / 116) ** 3  # of L* = 50
    np.testing.assert_allclose(values[:, 8:], 1.055 * luminance ** (1 / 2.4) - 0.055, atol=0.02)  # in sRGB


@pytest.mark.parametrize("profile", [cmyk_profile()[:400], b"junk" * 99, None, ImageCms.ImageCmsProfile(
    ImageCms.createProfile("sRGB")).tobytes()])  # fmt: skip
def test_cmyk_without_a_sound_profile_is_approximate_and_says_so(profile):
    ink = noise((8, 8), 4)
    options = {} if profile is None else {"iccprofile": profile}
    pixels = decode(np.frombuffer(tiff(ink, photometric="separated", **options), np.uint8), "x")
    assert [note.endswith("the colours are approximate") for note in pixels.notes] == [True]
    np.testing.assert_array_equal(pixels.colour, np.asarray(Image.fromarray(ink, "CMYK").convert("RGB")))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_layout_is_read_exactly(container, shape, capfd, caplog):
    wrong = []
    for name, data, colour, alpha in CONTAINERS[container](shape):
        try:
            pixels = decode(np.frombuffer(data, np.uint8), name)
        except ImageError as error:
            wrong.append(str(error))
            continue
        if not np.array_equal(pixels.colour, colour):
            wrong.append(f"{name}: colours {pixels.colour.shape} {pixels.colour.dtype}")
        if (alpha is None) != (pixels.alpha is None) or not (alpha is None or np.array_equal(pixels.alpha, alpha)):
            wrong.append(f"{name}: alpha")
    assert wrong == []
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []  # outside of a test they would be printed


def test_there_are_many_layouts():
    assert len(set(LAYOUTS)) == len(LAYOUTS) > 130


def apng():
    frames = [Image.fromarray(noise((4, 5), 3, 8, seed)) for seed in (0, 1)]
    return {kind: saved(frames, kind) for kind in ("PNG", "GIF", "WEBP", "TIFF")}


def saved(frames, kind):
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def refused():
    shape = (6, 7)
    rgb, gray = noise(shape, 3), noise(shape)[..., 0]
    several = apng()
    cfa = tiff(gray, photometric="cfa", extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, (0, 1, 1, 2), True)])
    return {
        "float": (tiff(rgb.astype(np.float32), photometric="rgb"), "32-bit ieeefp samples"),
        "half": (tiff(rgb.astype(np.float16), photometric="rgb"), "16-bit ieeefp samples"),
        "signed": (tiff(gray.astype(np.int16), photometric="minisblack"), "16-bit int samples"),
        "32 bits": (tiff(gray.astype(np.uint32), photometric="minisblack"), "32-bit uint samples"),
        "complex": (tiff(gray.astype(np.complex64), photometric="minisblack"), "64-bit complexieeefp samples"),
        "CIELab": (tiff(rgb, photometric="cielab"), "colours CIELAB"),
        "YCbCr": (tiff(rgb, photometric="ycbcr"), "YCbCr colours that are no JPEG"),
        "old-style JPEG": (
            tiff_tag(tiff(rgb, photometric="ycbcr"), 259, 6),
            r"a TIFF of old-style JPEG \(compression 6\)",
        ),
        "ThunderScan": (
            tiff_tag(tiff(gray, photometric="minisblack"), 259, 32809),
            "a TIFF of compression THUNDERSCAN",
        ),
        "no compression known": (
            tiff_tag(tiff(gray, photometric="minisblack"), 259, 4711),
            "a TIFF of compression 4711",
        ),
        "no meaning": (hand_tiff(shape, gray.tobytes(), {262: None}), "a TIFF without PhotometricInterpretation"),
        "mosaic": (cfa, "a raw photograph; develop it"),
        "volume": (tiff(np.stack([gray] * 16), photometric="minisblack", volumetric=True, tile=(16, 16, 16)), "layers"),
        "pages": (several["TIFF"], "a TIFF of 2 pictures"),
        "ImageJ stack": (imagej(np.stack([gray] * 3)), "a TIFF of 3 pictures"),
        "APNG": (several["PNG"], "an animated PNG of 2 pictures"),
        "animated WebP": (several["WEBP"], "an animated WEBP of 2 pictures"),
        "animated GIF": (several["GIF"], "an animated GIF of 2 pictures"),
        "GIF": (pillow(rgb, "GIF"), "a GIF, no PNG"),
        "two PNM": (2 * pillow(rgb, "PPM"), "a PNM of several pictures"),
        "PNM above maxval": (b"P5 2 1 7\n\x07\x08", "values above its maxval"),
        "PNM without maxval": (b"P5 2 1 0\n\x00\x00", "maxval 0"),
        "12-bit JPEG": (imagecodecs.jpeg8_encode(noise(shape, 3, 12), bitspersample=12), "a JPEG of 12 bits"),
        "BMP with a delta": (
            delta_bmp(),
            "a run-length encoded BMP that is damaged or skips pixels; convert it to PNG",
        ),
        "BMP of negative width": (
            pillow(rgb, "BMP").replace(b"\7\0\0\0", b"\xf9\xff\xff\xff"),
            "its width is negative",
        ),
        "BMP of odd masks": (bmp(noise(shape, 1, 16)[..., 0], 16, (0xF000, 0xF00, 0xF0)), "a BMP of a layout"),
    }


def tiff_tag(data, tag, value):
    """The file with another value, of 16 bits, in a tag that it has."""
    at = data.index(struct.pack("<HHI", tag, 3, 1)) + 8
    return data[:at] + struct.pack("<H", value) + data[at + 2 :]


def imagej(values):
    file = io.BytesIO()
    tifffile.imwrite(file, values, imagej=True)
    return file.getvalue()


@pytest.mark.parametrize(("data", "message"), refused().values(), ids=refused())
def test_other_layouts_are_refused_by_their_name(data, message):
    with pytest.raises(ImageError, match=rf"^x: .*{message}") as caught:
        decode(np.frombuffer(data, np.uint8), "x")
    assert "\n" not in str(caught.value)


def test_a_thumbnail_is_no_second_picture():
    rgb, small = noise((90, 60), 3), noise((9, 6), 3)
    for flags in ((0, 1), (1, 0), (0, 0)):
        file = io.BytesIO()
        pictures = [small, rgb] if flags[0] else [rgb, small]
        with tifffile.TiffWriter(file) as writer:
            for values, flag in zip(pictures, flags, strict=True):
                writer.write(values, photometric="rgb", metadata=None, subfiletype=flag)
        np.testing.assert_array_equal(decode_rgb8(np.frombuffer(file.getvalue(), np.uint8), "x"), rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_applied(orientation):
    rgb = noise((7, 5), 3)
    data = tiff(rgb, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    exif = Image.Exif()
    exif[274] = orientation
    expected = rgb
    if orientation > 1:
        turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
        expected = np.asarray(Image.fromarray(rgb).transpose(Image.Transpose(turned)))
    np.testing.assert_array_equal(decode_rgb8(np.frombuffer(data, np.uint8), "x"), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_upright(orientation):
    rgb = noise((7, 5), 3)
    data = np.frombuffer(tiff(rgb, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]), np.uint8)
    np.testing.assert_array_equal(decode_rgb8(data, "x"), rgb)
    assert image_size(data, "x") == (7, 5)


@pytest.mark.parametrize("kinds", [[2], [1], [0], [2, 0], [0, 2, 1]], ids=str)
def test_extra_samples_that_are_not_there_are_none(kinds):
    rgb = noise((7, 5), 3)
    tags = {258: [8, 8, 8], 262: 2, 277: 3, 338: kinds}
    pixels = decode(np.frombuffer(hand_tiff(rgb.shape, rgb.tobytes(), tags), np.uint8), "x")
    np.testing.assert_array_equal(pixels.colour, rgb)
    assert pixels.alpha is None
    assert pixels.notes == ()


def motion_photo(rgb):
    """A JPEG with a film behind it, in which there are as many scans as anybody likes."""
    return pillow(rgb, "JPEG") + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 5000


def test_what_lies_behind_a_picture_does_not_count():
    rgb = noise((20, 30), 3)
    data = motion_photo(rgb)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode_rgb8(np.frombuffer(data, np.uint8), "x"), np.asarray(image))


def cut_jpegs():
    """JPEGs that end in order before their picture does, and one with a marker in it."""
    values = noise((90, 120), 3)
    modes = {"gray": ("L", {}), "RGB": ("RGB", {}), "CMYK": ("CMYK", {})}
    modes |= {"progressive": ("RGB", {"progressive": True}), "restarts": ("RGB", {"restart_marker_blocks": 1})}
    for name, (mode, options) in modes.items():
        data = pillow(values, "JPEG", mode, quality=95, **options)
        yield name, data[: len(data) // 2 + 300] + b"\xff\xd9"
        yield f"{name}, the end", data[:-200] + b"\xff\xd9"
    data = pillow(values, "JPEG", quality=95)
    start = data.index(b"\xff\xda")
    yield "marker", data[: start + 2000] + b"\xff\xe3\0\4" + data[start + 2004 :]
    data = tiff(values, photometric="ycbcr", compression="jpeg", rowsperstrip=48)
    strip = TiffFile(io.BytesIO(data)).pages[0].dataoffsets[1]
    yield "TIFF", data[: strip + 1000] + b"\xff\xd9" + data[strip + 1002 :]


@pytest.mark.parametrize("data", dict(cut_jpegs()).values(), ids=dict(cut_jpegs()))
def test_a_jpeg_that_ends_too_early_is_refused(data):
    with pytest.raises(ImageError, match="a part of the picture is missing"):
        decode(np.frombuffer(data, np.uint8), "x")


@pytest.mark.parametrize("stray", [b"\xff", b"\xff" * 9, b"\0" * 5, b"\xff\0", b"\xff\0\1", b"ab\xff"], ids=repr)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_bytes_that_libjpeg_skips_do_no_harm(mode, stray):
    """Between the segments, and between the data and the end, where cameras leave some."""
    data = pillow(noise((20, 30), 3), "JPEG", mode)
    places = [data.index(marker) for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda")]
    for place in (*places, len(data) - 2):
        filled = data[:place] + stray + data[place:]
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(decode_rgb8(np.frombuffer(filled, np.uint8), "x"), expected)


def test_a_jpeg_with_two_sizes_is_refused():
    data = pillow(noise((20, 30), 3), "JPEG")
    start = data.index(b"\xff\xc0")
    frame = bytearray(data[start : start + 19])
    frame[5:9] = struct.pack(">HH", 20_000, 20_000)
    for doubled in (data[:start] + frame + data[start:], data[: start + 19] + frame + data[start + 19 :]):
        with pytest.raises(ImageError, match="cannot be decoded"):
            decode(np.frombuffer(doubled, np.uint8), "x")


@pytest.mark.timeout(20)
def test_fill_bytes_and_directories_without_end_take_no_time():
    data = pillow(noise((20, 30), 3), "JPEG")
    filled = data[:2] + b"\xff" * 5_000_000 + data[3:]
    assert decode_rgb8(np.frombuffer(filled, np.uint8), "x").shape == (20, 30, 3)
    sides = b"".join(struct.pack("<HHII", tag, 3, 1, 1) for tag in (256, 257, 258, 259, 262, 273, 277, 278, 279))
    starts = range(8, 8 + 20_000 * 114, 114)  # of directories of nine entries
    directories = b"".join(struct.pack("<H", 9) + sides + struct.pack("<I", start + 114) for start in starts)
    with pytest.raises(ImageError, match="a TIFF of more than 16 pictures"):
        decode(np.frombuffer(b"II*\0" + struct.pack("<I", 8) + directories, np.uint8), "x")


def test_the_size_is_that_of_the_header_that_the_decoder_reads():
    """Comments and white space of a PNM, where decoders disagree."""
    data = b"P5\n#1 1\n3 #\r\n2\n255\n" + bytes(range(6))
    np.testing.assert_array_equal(decode(np.frombuffer(data, np.uint8), "x").colour[..., 0], [[0, 1, 2], [3, 4, 5]])


def test_heic_and_avif_are_read(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    rgb = np.tile(noise((4, 4), 3), (8, 10, 1))
    for kind in ("HEIF", "AVIF"):
        data = pillow(rgb, kind, quality=100)
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(decode_rgb8(np.frombuffer(data, np.uint8), "x"), np.asarray(image))


def test_photographs_of_phones_are_upright(tmp_path):
    from mrda_inference.image_file import read_picture

    rows, columns = np.mgrid[:48, :64]
    image = Image.fromarray(np.dstack([rows * 5, columns * 3, rows + columns]).astype(np.uint8))
    exif = Image.Exif()
    exif[274], exif[271] = 6, "Phone"
    image.save(tmp_path / "a.avif", quality=100, exif=exif)
    picture = read_picture(tmp_path / "a.avif")
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert picture.colour.shape == (64, 48, 3)
    assert np.abs(picture.colour - expected).max() < 12
    assert b"Phone" in picture.side.exif


def test_a_reduced_depth_is_said(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (16, 12), noise((12, 16), 3, 16).tobytes()).save(file, quality=90)
    pixels = decode(np.frombuffer(file.getvalue(), np.uint8), "x")
    assert pixels.colour.shape == (12, 16, 3)
    assert pixels.notes == ("its 10 bits a colour were read as 8",)


def test_without_pillow_heif_a_heic_photograph_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r'pillow-heif is not installed; pip install "\.\[heif\]"'):
        decode(np.frombuffer(b"\0\0\0\x18ftypheic" + bytes(40), np.uint8), "x")
