"""From file to file: what is kept of a photograph, what the options do, and how it ends where it cannot be done."""

from __future__ import annotations

import errno
import io
import os
import resource
import struct
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from mrda_arch import MRDANet
from mrda_data.images import ImageError
from mrda_inference import batch, canvas, command_line, image_writer, photograph
from mrda_inference.image_file import read_picture
from mrda_inference.photograph import Cancelled, OutputOptions, TooLargeError, restore_file, with_visible_colours
from mrda_inference.upscaler import Upscaler
from mrda_utils import files
from mrda_utils.errors import OptionError
from mrda_utils.files import WriteError, written_whole

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def nearest(lq, idr):
    """A network that repeats pixels."""
    return lq.repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.fixture
def upscaler():
    return Upscaler(MRDANet(num_feat=6, num_block=1, den_feat=4), lambda lq: lq, nearest, torch.device("cpu"))


@pytest.fixture
def photo(tmp_path):
    """Function that saves an image and gives its path."""

    def save(image, name="a.png", **options):
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def ramp(height=24, width=32):
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([rows * 255 // height, columns * 255 // width, (rows + columns) * 4]).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- what is kept
def camera_exif(orientation=6):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif[ExifTags.Base.DateTime] = "2024:05:06 07:08:09"
    exif[ExifTags.Base.Orientation] = orientation
    details = {ExifTags.Base.ExifImageWidth: 32, ExifTags.Base.ExifImageHeight: 24, ExifTags.Base.FNumber: 2.8}
    exif[ExifTags.IFD.Exif] = {**details, ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09"}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (52.0, 30.0, 0.0)}
    return exif


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description tiff:Orientation="6" exif:PixelXDimension="32" GCamera:MotionPhoto="1" dc:creator="me"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_xmp_profile_and_resolution_go_with_the_picture(upscaler, photo, tmp_path, source, suffix):
    options = {"exif": camera_exif(), "icc_profile": SRGB, "dpi": (300, 240)}
    if source == ".png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif source == ".tif":
        del options["exif"]
        options["tiffinfo"] = {274: 6, 271: "Camera", 306: "2024:05:06 07:08:09", 700: XMP}
    else:
        options["xmp"] = XMP
    path = photo(ramp(), f"in{source}", **options)
    assert restore_file(path, tmp_path / f"out{suffix}", upscaler).write() == []
    with Image.open(tmp_path / f"out{suffix}") as image:
        image.load()
        assert image.size == (96, 128)  # upright
        assert image.info["icc_profile"] == SRGB
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Camera"
        assert exif[ExifTags.Base.DateTime] == "2024:05:06 07:08:09"
        assert exif[ExifTags.Base.Orientation] == 1
        if source != ".tif":
            details, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
            assert float(details[ExifTags.Base.FNumber]) == pytest.approx(2.8)
            sides = details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]
            assert sides == (96, 128)
            assert tuple(map(float, place[ExifTags.GPS.GPSLatitude])) == (52, 30, 0)
        xmp = image.info["xmp"]
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        assert b'tiff:Orientation="1"' in xmp
        assert b'MotionPhoto="0"' in xmp
        assert b'PixelXDimension="96"' in xmp
        assert b'creator="me"' in xmp
        if suffix != ".webp" and source != ".webp":  # WebP has no place for it
            assert image.info["dpi"] == pytest.approx((300, 240), rel=1e-3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_is_made_anew(upscaler, tmp_path, suffix, order):
    exif = camera_exif(6)
    exif.endian = order
    block = exif.tobytes()
    # a second directory, as cameras append it: offset and length of a JPEG
    start = len(block) - 6
    thumbnail = b"\xff\xd8THUMBNAIL\xff\xd9"
    directory = struct.pack(f"{order}HHHIIHHIII", 2, 0x201, 4, 1, start + 30, 0x202, 4, 1, len(thumbnail), 0)
    count = struct.unpack_from(f"{order}H", block, 14)[0]
    at = 16 + 12 * count
    block = block[:at] + struct.pack(f"{order}I", start) + block[at + 4 :] + directory + thumbnail
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = 200
    Image.fromarray(image).save(tmp_path / "in.jpg", exif=block)
    assert b"THUMBNAIL" in (tmp_path / "in.jpg").read_bytes()
    output = tmp_path / f"out{suffix}"
    restore_file(tmp_path / "in.jpg", output, upscaler).write()
    assert b"THUMBNAIL" not in output.read_bytes()
    with Image.open(output) as image:
        found = image.getexif()
        assert found[ExifTags.Base.Make] == "Camera"
        second = found.get_ifd(ExifTags.IFD.IFD1)
        data = image.info["exif"].removeprefix(b"Exif\0\0")[second[0x201] :]
    assert len(data) == second[0x202]
    with Image.open(io.BytesIO(data)) as small:
        assert small.size == (107, 160)  # upright, as the picture
        rows = np.asarray(small.convert("L")).mean(1)
    assert rows[:70].min() > 150 > 50 > rows[90:].max()


def test_strip_leaves_all_but_the_colour_profile_out(upscaler, photo, tmp_path):
    path = photo(ramp(), "in.jpg", exif=camera_exif(), icc_profile=SRGB, dpi=(300, 300), xmp=XMP)
    restore_file(path, tmp_path / "out.png", upscaler, OutputOptions(strip=True)).write()
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert image.info["icc_profile"] == SRGB
        assert "dpi" not in image.info
        assert not image.getexif()
        assert "xmp" not in image.info


@pytest.mark.parametrize("length", [SRGB + b"\0", SRGB[:-1], b"junk" * 40])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_damaged_profile_is_dropped_with_a_line_and_the_picture_is_kept(upscaler, photo, tmp_path, length, suffix):
    path = photo(ramp(), "in.jpg", icc_profile=length)
    notes = restore_file(path, tmp_path / f"out{suffix}", upscaler).write()
    assert notes == ["its colour profile is damaged and was left out"]
    with Image.open(tmp_path / f"out{suffix}") as image:
        image.load()
        assert image.size == (128, 96)
        assert "icc_profile" not in image.info


def test_a_long_profile_goes_into_several_segments_of_a_jpeg(upscaler, photo, tmp_path):
    profile = (len(SRGB) + 150_000).to_bytes(4, "big") + SRGB[4:] + noise(150_000).tobytes()
    restore_file(photo(ramp(), icc_profile=profile), tmp_path / "out.jpg", upscaler).write()
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_meaning_of_png_values_is_kept_or_said(upscaler, photo, tmp_path, suffix):
    path = photo(ramp())
    data = path.read_bytes()
    gamma = photo(Image.new("L", (1, 1)), "g.png")  # to borrow Pillow's writer of chunks
    file = io.BytesIO()
    PngImagePlugin.putchunk(file, b"gAMA", struct.pack(">I", 100_000))
    PngImagePlugin.putchunk(file, b"cICP", bytes([9, 16, 0, 1]))
    gamma.write_bytes(data[:33] + file.getvalue() + data[33:])
    notes = restore_file(gamma, tmp_path / f"out{suffix}", upscaler).write()
    written = (tmp_path / f"out{suffix}").read_bytes()
    if suffix == ".png":
        assert notes == []
        assert file.getvalue() == written[33 : 33 + len(file.getvalue())]
    else:
        assert notes == ["its gamma or cICP has no place in .jpg and was left out; .png keeps it"]


def test_damaged_exif_is_dropped_with_a_line(upscaler, photo, tmp_path):
    path = photo(ramp(), "in.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x0f\0\x02\x7f\xff\xff\xff" * 9)
    notes = restore_file(path, tmp_path / "out.jpg", upscaler).write()
    assert len(notes) <= 1
    with Image.open(tmp_path / "out.jpg") as image:
        image.load()
        assert image.size == (128, 96)


# -------------------------------------------------------------------------------------------------------------- alpha
def disc(inside, outside, size=32):
    """A disc with a soft edge, one colour where it shows and another where it does not."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    alpha = np.clip((size / 3 - np.hypot(rows, columns)) * 128 + 128, 0, 255).astype(np.uint8)
    colour = np.where(alpha[..., None] > 0, np.uint8(inside), np.uint8(outside))
    return np.dstack([colour.repeat(3, 2), alpha])


def test_no_rim_appears_round_a_disc(photo, tmp_path):
    from mrda_inference.upscaler import open_upscaler

    restore_file(
        photo(disc(255, 0)), tmp_path / "out.png", open_upscaler("shipped:mrda_lite_x4_student", device="cpu")
    ).write()
    image = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    over_white = np.rint((image[..., :3] * image[..., 3:] + 255 * (255 - image[..., 3:])) / 255)
    assert over_white.min() == 255


def test_hidden_colours_are_those_of_the_nearest_visible(photo):
    rgba = np.zeros((5, 6, 4), np.uint8)
    rgba[2, 1] = (10, 20, 30, 255)
    rgba[2, 5] = (200, 210, 220, 1)
    filled = with_visible_colours(read_picture(photo(rgba)))
    assert {tuple(colour) for colour in filled.colour[:, :3].reshape(-1, 3)} == {(10, 20, 30)}
    assert {tuple(colour) for colour in filled.colour[:, 4:].reshape(-1, 3)} == {(200, 210, 220)}
    np.testing.assert_array_equal(filled.alpha[..., 0], rgba[..., 3])


def test_alpha_that_is_opaque_is_none(upscaler, photo, tmp_path):
    rgba = np.dstack([ramp(), np.full((24, 32), 255, np.uint8)])
    restore_file(photo(rgba), tmp_path / "out.jpg", upscaler).write()
    restore_file(photo(rgba), tmp_path / "out.png", upscaler).write()
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "RGB"
    with pytest.raises(ImageError, match=r"\.jpg holds no alpha; choose png or webp, or --background"):
        restore_file(photo(disc(9, 9)), tmp_path / "other.jpg", upscaler).write()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_background_shows_through(upscaler, photo, tmp_path, mode):
    image = Image.fromarray(disc(40, 255)).convert(mode)
    restore_file(photo(image), tmp_path / "out.png", upscaler, OutputOptions(background=(200, 100, 0))).write()
    expected = Image.new("RGBA", image.size, (200, 100, 0))
    expected.alpha_composite(image.convert("RGBA"))
    found = np.asarray(Image.open(tmp_path / "out.png"))[::4, ::4]
    assert np.abs(found.astype(int) - np.asarray(expected.convert("RGB"))).max() <= 1


# ------------------------------------------------------------------------------------------------------- size, quality
def resized(picture, size, resampling):
    """By Pillow in one piece, in floating point."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(picture, -1, 0)]
    return np.dstack([np.asarray(channel.resize(size, resampling)) for channel in channels]).clip(0, 255)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (128, 96)),
        ({"outscale": 2}, (64, 48)),
        ({"outscale": 1}, (32, 24)),
        ({"outscale": 3.3}, (106, 79)),
        ({"outscale": 6}, (192, 144)),
        ({"width": 100}, (100, 75)),
        ({"height": 30}, (40, 30)),
        ({"width": 50, "height": 60}, (50, 60)),
    ],
)
def test_the_size_is_what_is_asked_for_and_the_filter_is_antialiased(upscaler, photo, tmp_path, options, size):
    rgba = np.dstack([noise(24, 32, 3), ramp()[..., 0]])
    restore_file(photo(rgba), tmp_path / "out.png", upscaler, OutputOptions(**options)).write()
    with Image.open(tmp_path / "out.png") as image:
        assert image.size == size
        colour, alpha = np.asarray(image)[..., :3].astype(int), np.asarray(image)[..., 3].astype(int)
    filled = np.asarray(with_visible_colours(read_picture(photo(rgba))).colour)
    large = filled.repeat(4, 0).repeat(4, 1)
    assert np.abs(colour - resized(large, size, Image.Resampling.LANCZOS)).max() <= (1 if options else 0)
    assert np.abs(alpha - resized(rgba[..., 3:], size, Image.Resampling.BICUBIC)[..., 0]).max() <= 1


def test_a_picture_of_several_strips_is_resized_as_a_whole_one():
    picture = noise(700, 40, 3)
    for height, width in ((900, 30), (333, 81), (2000, 40)):
        found = np.empty((height, width, 3), np.uint8)
        canvas.resize_into(found, picture, Image.Resampling.LANCZOS)
        assert np.abs(found - resized(picture, (width, height), Image.Resampling.LANCZOS)).max() <= 1


def test_sixteen_bits_stay_sixteen_bits_at_another_size(upscaler, photo, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 65536, (20, 20, 3), dtype=np.uint16))
    restore_file(tmp_path / "a.png", tmp_path / "out.png", upscaler, OutputOptions(outscale=2)).write()
    found = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    assert found.shape == (40, 40, 3)
    assert len(np.unique(found % 257)) > 200


def test_quality_is_that_of_the_encoder(upscaler, photo, tmp_path):
    sizes = []
    for quality in (5, 50, None, 100):
        restore_file(photo(noise(24, 32, 3)), tmp_path / "out.jpg", upscaler, OutputOptions(quality)).write()
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4
    restore_file(photo(noise(24, 32, 3)), tmp_path / "out.webp", upscaler).write()
    restore_file(photo(noise(24, 32, 3)), tmp_path / "small.webp", upscaler, OutputOptions(20)).write()
    assert (tmp_path / "small.webp").stat().st_size < (tmp_path / "out.webp").stat().st_size
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.webp"))[::4, ::4], noise(24, 32, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 0}, "--quality 0: must be 1 to 100"),
        ({"quality": 101}, "--quality 101"),
        ({"outscale": 0}, "--outscale 0: must be above 0"),
        ({"outscale": float("nan")}, "--outscale nan"),
        ({"outscale": 2, "width": 5}, "--outscale excludes --width"),
        ({"width": 0}, "--width 0: must be 1 to 1000000"),
        ({"height": -1}, "--height -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        OutputOptions(**options)


# -------------------------------------------------------------------------------------------------- progress, the end
def test_progress_is_told_and_the_work_can_be_stopped(upscaler, photo, tmp_path):
    told = []
    small = upscaler._replace(tile=20, overlap=4)
    restore_file(photo(noise(30, 50, 3)), tmp_path / "out.png", small, progress=lambda *at: told.append(at)).write()
    assert list(dict.fromkeys(told)) == [(done, 6) for done in range(7)]
    assert told == sorted(told)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png"))[::4, ::4], noise(30, 50, 3))

    def stop(done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        restore_file(photo(noise(30, 50, 3)), tmp_path / "new.png", small, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out.png"]


def test_memory_that_cannot_do_is_told_before_the_network_runs(upscaler, photo, tmp_path, monkeypatch):
    def restore(lq, idr):
        raise AssertionError("the network ran")

    busy = upscaler._replace(restore=restore, encode=restore)
    monkeypatch.setattr(photograph, "available_memory", lambda: 1000)
    with pytest.raises(TooLargeError, match=r"a\.png: takes 0\.\d GB of memory and 0\.0 GB are free; choose a smaller"):
        restore_file(photo(ramp()), tmp_path / "out.png", busy).write()


def test_a_picture_above_what_memory_allows_goes_through_a_file(upscaler, photo, tmp_path, monkeypatch):
    path = photo(noise(30, 50, 3))
    restore_file(path, tmp_path / "in_memory.png", upscaler).write()
    mapped = []

    def memmap(*arguments, **options):
        mapped.append(np_memmap(*arguments, **options))
        return mapped[-1]

    np_memmap = np.memmap
    monkeypatch.setattr(np, "memmap", memmap)
    monkeypatch.setattr(canvas, "available_memory", lambda: 1000)
    restore_file(path, tmp_path / "mapped.png", upscaler).write()
    assert len(mapped) == 1
    assert (tmp_path / "mapped.png").read_bytes() == (tmp_path / "in_memory.png").read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "in_memory.png", "mapped.png"]

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ImageError, match=r"there is no room for it \(No space left on device\)"):
        restore_file(path, tmp_path / "mapped.png", upscaler).write()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_what_an_encoder_does_not_write_whole_is_no_output(
    upscaler, photo, tmp_path, tmp_path_factory, monkeypatch, suffix
):
    scratch = str(tmp_path_factory.mktemp("scratch") / f"whole{suffix}")
    (tmp_path / f"out{suffix}").write_bytes(b"before")
    write = cv2.imwriteWithMetadata

    def half(path, *arguments):
        write(scratch, *arguments)
        whole = Path(scratch).read_bytes()
        Path(path).write_bytes(whole[: len(whole) // 2])
        return True

    for fault in (half, lambda *arguments: False):
        monkeypatch.setattr(cv2, "imwriteWithMetadata", fault)
        with pytest.raises(ImageError, match=rf"out{suffix}: cannot be encoded"):
            restore_file(photo(noise(24, 32, 3)), tmp_path / f"out{suffix}", upscaler).write()
    assert (tmp_path / f"out{suffix}").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_is_full_while_encoding_is_told_as_such(upscaler, photo, tmp_path, monkeypatch):
    path = photo(noise(24, 32, 3))

    def limited(plain, *arguments):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        return write(plain, *arguments)

    write, before = cv2.imwriteWithMetadata, resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(cv2, "imwriteWithMetadata", limited)
    try:
        with pytest.raises(WriteError, match=r"out\.png: cannot be written \(File too large\)"):
            restore_file(path, tmp_path / "out.png", upscaler).write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_nothing_is_computed_for_a_folder_that_takes_no_file(upscaler, photo, tmp_path, monkeypatch):
    def restore(lq, idr):
        raise AssertionError("the network ran")

    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(photograph.tempfile, "TemporaryFile", refuse)
    with pytest.raises(WriteError, match=r"out\.png: cannot be written \(Read-only file system\)") as caught:
        restore_file(photo(ramp()), tmp_path / "out.png", upscaler._replace(restore=restore)).write()
    assert caught.value.of_any_file


def test_a_long_name_has_no_longer_temporary_one(tmp_path, monkeypatch):
    names = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: names.append(self.name) or replace(self, target))
    for name in ("ä" * 125 + ".json", "a" * 255, "short.png"):
        with written_whole(tmp_path / name) as file:
            file.write(b"x")
        assert (tmp_path / name).read_bytes() == b"x"
        assert len(os.fsencode(names[-1])) <= max(100, len(os.fsencode(name)))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_system_that_cannot_flush_folders_is_taken_as_it_is(tmp_path, monkeypatch, capsys):
    fsync = os.fsync

    def refuse(descriptor):
        if os.fstat(descriptor).st_mode & 0o040000:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    for code in (errno.EINVAL, errno.EINVAL, errno.EINVAL):
        with written_whole(tmp_path / f"{code}") as file:
            file.write(b"x")
    assert capsys.readouterr().err.count("does not flush folders") <= 1  # once a process
    code = errno.EIO
    with pytest.raises(WriteError, match="Input/output error"), written_whole(tmp_path / "y") as file:
        file.write(b"x")


def test_the_first_failure_of_a_full_disk_ends_a_batch(photo, tmp_path, monkeypatch, capsys):
    for name in "abcd":
        photo(ramp(), f"{name}.png")
    restored = []
    restore = batch.restore_file

    def counted(source, *arguments, **options):
        restored.append(source.name)
        return restore(source, *arguments, **options)

    def full(*arguments):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise files.WriteError("out/a.png: cannot be written (No space left on device)") from error

    monkeypatch.setattr(batch, "restore_file", counted)
    monkeypatch.setattr(photograph, "write_pixels", full)
    options = ["--device", "cpu", "--weights", "shipped:mrda_lite_x4_student"]
    with pytest.raises(WriteError, match="No space left"):
        command_line.upscale_files(["-i", str(tmp_path), "-o", str(tmp_path / "out"), *options])
    assert restored == ["a.png", "b.png"]
    assert "0 upscaled, 0 skipped, 0 failed, 4 not written: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("full_at", "interrupted_at", "made", "told"),
    [
        ("a", None, "b", "1 upscaled, 0 skipped, 0 failed, 3 not written: "),
        ("b", None, "ac", "2 upscaled, 0 skipped, 0 failed, 2 not written: "),
        (None, "a", "", "0 upscaled, 0 skipped, 0 failed, 4 not written: "),
        (None, "c", "ab", "2 upscaled, 0 skipped, 0 failed, 2 not written: "),
        (None, None, "abcd", "4 upscaled, 0 skipped, 0 failed: "),
    ],
)
def test_the_last_line_of_a_run_that_ends_early_counts_all_files(
    photo, tmp_path, monkeypatch, capsys, full_at, interrupted_at, made, told
):
    for name in "abcd":
        photo(ramp(), f"{name}.png")
    restore, write = batch.restore_file, photograph.write_pixels

    def restored(source, *arguments, **options):
        if source.stem == interrupted_at:
            raise KeyboardInterrupt
        return restore(source, *arguments, **options)

    def written(pixels, side, path, *arguments):
        with files.refusal_named(path):
            if path.stem == full_at:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(pixels, side, path, *arguments)

    monkeypatch.setattr(batch, "restore_file", restored)
    monkeypatch.setattr(photograph, "write_pixels", written)
    options = ["--device", "cpu", "--weights", "shipped:mrda_lite_x4_student"]
    with suppress(KeyboardInterrupt, WriteError):
        command_line.upscale_files(["-i", str(tmp_path), "-o", str(tmp_path / "out"), *options])
    assert {path.stem for path in tmp_path.glob("out/*")} == set(made)
    assert told in capsys.readouterr().out


def test_no_line_of_a_codec_reaches_the_terminal(upscaler, photo, tmp_path, capfd):
    path = photo(noise(24, 32, 3), icc_profile=SRGB[:-1])
    data = path.read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    wrong = bytearray(data)
    wrong[len(data) // 2] ^= 255
    (tmp_path / "wrong.png").write_bytes(wrong)
    photo(noise(24, 32, 3), "in.jpg")
    jpeg = bytearray((tmp_path / "in.jpg").read_bytes())
    jpeg[len(jpeg) // 2 : len(jpeg) // 2 + 40] = b"\xff\xe3" * 20
    (tmp_path / "odd.jpg").write_bytes(jpeg)
    for name in ("a.png", "cut.png", "wrong.png", "odd.jpg"):
        try:
            restore_file(tmp_path / name, tmp_path / "out.png", upscaler).write()
        except ImageError:
            assert name in ("cut.png", "wrong.png", "odd.jpg")
    assert capfd.readouterr() == ("", "")


def test_the_writers_know_the_same_formats():
    assert set(image_writer.LONGEST_SIDE) == {".png", ".jpg", ".jpeg", ".webp"}
