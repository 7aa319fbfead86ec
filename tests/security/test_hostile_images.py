"""Images, folders, LMDBs and LR sets of a stranger."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import time
import zlib
from hashlib import sha256

import cv2
import lmdb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrda_data import BenchmarkDataset, LQDataset
from mrda_data.images import MAX_BYTES, ImageError, decode_rgb8, image_size, read_rgb8
from mrda_data.lmdb_source import LmdbSource, write_lmdb
from mrda_data.lr_set import LRSet, write_lr_set
from mrda_data.sources import FolderSource
from mrda_data.sub_images import Sizes, cut_all, read_manifest
from mrda_utils.errors import UserError
from scripts.prepare_data import pack
from tests.security.conftest import LONG, SHORT, damaged

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(kind: str, pixels: np.ndarray = RGB, **kwargs) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **kwargs)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG of this size in its header, without pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + sizes + bytes(60)


def slow_jpeg() -> bytes:
    """A progressive JPEG whose last scan is there a thousand times; each takes as long as the whole image."""
    data = encoded("JPEG", np.zeros((2000, 2000), np.uint8), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + data[-2:]


def zeros(height: int, width: int) -> bytes:
    """A whole PNG of a few hundred kilobytes."""
    return cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes()


FLOAT = np.full((4, 4, 3), np.nan, np.float32)
FILES = {
    "pixels that fill the memory": (zeros(12_000, 12_000), "12000x12000 is more than 134,217,728 pixels"),
    "header of a million million": (png(10**6, 10**6), "more than 134,217,728 pixels"),
    "header of the largest number": (png(2**31 - 1, 2**31 - 1), "more than 134,217,728 pixels"),
    "header without pixels": (png(0, 0), "cannot be decoded"),
    "header without data": (png(5000, 5000), "cannot be decoded"),
    "wide BMP": (bmp(10**6, 10**6), "more than 134,217,728 pixels"),
    "wide PPM": (b"P6\n1000000 1000000\n255\n" + bytes(60), "more than 134,217,728 pixels"),
    "PPM of -5": (b"P6\n-5 5\n255\n" + bytes(60), "cannot be decoded"),
    "JPEG of a thousand scans": (slow_jpeg(), "a JPEG of more than 100 scans"),
    "NaN": (cv2.imencode(".tiff", FLOAT)[1].tobytes(), "8 or 16 bits"),
    "infinite gray": (cv2.imencode(".tiff", np.full((4, 4), np.inf, np.float32))[1].tobytes(), "8 or 16 bits"),
    "another format": (encoded("GIF"), "no PNG, JPEG, BMP, WebP, TIFF, PNM, HEIC or AVIF"),
    "wrong magic": (b"\x89PNX" + encoded("PNG")[4:], "cannot be decoded"),
    "text": (b"GIF89a; rm -rf", "cannot be decoded"),
    **{f"half a {kind}": (encoded(kind)[:400], "cannot be decoded") for kind in ("PNG", "JPEG", "BMP", "TIFF", "PPM")},
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("data", "message"), FILES.values(), ids=FILES)
def test_hostile_images_are_refused_by_name(data, message, tmp_path, little_memory):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=rf"a\.png: .*{message}"):
        read_rgb8(tmp_path / "a.png")


def test_a_file_without_end_is_not_read(tmp_path, little_memory):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no space
    with pytest.raises(ImageError, match=r"a\.png: 1,073,741,825 bytes, more than 1,073,741,824"):
        read_rgb8(tmp_path / "a.png")


def test_16_bits_are_rounded_for_every_value():
    image = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    decoded = decode_rgb8(np.frombuffer(cv2.imencode(".png", image)[1], np.uint8), "x")
    np.testing.assert_array_equal(decoded[..., 0], np.rint(image * (255 / 65535)))


@pytest.mark.timeout(20)
def test_pipes_devices_and_folders_are_no_images(tmp_path):
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x/pipe.png")
    (tmp_path / "x/zero.png").symlink_to("/dev/zero")
    (tmp_path / "x/folder.png").mkdir()
    (tmp_path / "x/a.png").write_bytes(encoded("PNG"))
    assert FolderSource(tmp_path / "x").names == ["a.png"]


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\x1b[2Jb.png", "a\u2028b.png".encode(), b"a\xffb.png", b"a\tb/c.png"])
def test_names_that_would_break_tables_and_manifests_are_refused(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(encoded("PNG"))
    with pytest.raises(ImageError, match="is no name for an image here; rename it") as caught:
        FolderSource(tmp_path)
    assert str(caught.value).isprintable()


NAMES = [
    "a b.png",
    "Ätna 山/日本\u3000語.png",
    "[x](y).png",
    "-rf.png",
    "a..png",
    "'; $(touch executed).png",
    "a.b.c.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_unusual_names_go_through_folder_lmdb_and_lr_set(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hr"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(encoded("PNG", RGB[:16, :16]))
    write_lmdb(folder, [name], tmp_path / "x.lmdb", 1)
    opt = {"name": "X", "scale": 4, "protocol": "bicubic", "kernel_size": 21, "dataroot_gt": str(folder)}
    dataset = BenchmarkDataset(opt)
    (tmp_path / "lr").mkdir()
    write_lr_set(dataset, tmp_path / "lr/X")
    again = BenchmarkDataset({**opt, "dataroot_gt": str(tmp_path / "x.lmdb"), "dataroot_lq": str(tmp_path / "lr/X")})
    assert again[0]["lq_path"] == dataset[0]["lq_path"] == name
    assert torch.equal(again[0]["lq"], dataset[0]["lq"])
    pack(tmp_path / "lr/X", 1)
    again = BenchmarkDataset({**opt, "dataroot_lq": str(tmp_path / "lr/X.lmdb")})
    assert torch.equal(again[0]["lq"], dataset[0]["lq"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "hr", "lr", "x.lmdb"]


# ----------------------------------------------------------------------------------------------------------------- LMDB
def an_lmdb(folder, meta_info: str, values: dict[bytes, bytes] | None = None):
    """An LMDB with any list of names."""
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for key, value in (values or {b"a": encoded("PNG")}).items():
            transaction.put(key, value)
    (folder / "meta_info.txt").write_text(meta_info, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped.png",
        "a/../../../escaped.png",
        "/escaped.png",
        "..",
        ".",
        "a\x1b[2J.png",
        "a\u2028b.png",
        "a\x00.png",
        "..\\..\\escaped.png",  # the others lead away on Windows
        "C:\\Windows\\escaped.png",
        "C:escaped.png",
        "\\escaped.png",
        "\\\\server\\share\\escaped.png",
    ],
)
def test_names_in_an_lmdb_stay_in_their_folder(tmp_path, name):
    an_lmdb(tmp_path / "x.lmdb", f"{name} (20,30,3) 1\n", {b"a": encoded("PNG")})
    with pytest.raises(ImageError, match=r"x\.lmdb/meta_info\.txt line 1: .* is no name for an image here"):
        LmdbSource(tmp_path / "x.lmdb")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "cannot be decoded"),
        (b"cos\nsystem\n(S'touch executed'\ntR.", "cannot be decoded"),
        (zeros(12_000, 12_000), "12000x12000 is more than"),
    ],
    ids=["empty", "pickle", "bomb"],
)
def test_values_in_an_lmdb_are_images_or_refused(tmp_path, value, message, little_memory):
    source = LmdbSource(an_lmdb(tmp_path / "x.lmdb", "a.png (20,30,3) 1\n", {b"a": value or b" "}))
    with pytest.raises(ImageError, match=rf"x\.lmdb: key 'a': .*{message}"):
        source.read(0)
    assert [path.name for path in tmp_path.iterdir()] == ["x.lmdb"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("part", ["data.mdb", "meta_info.txt"])
def test_a_pipe_in_an_lmdb_is_not_waited_for(tmp_path, part):
    folder = an_lmdb(tmp_path / "x.lmdb", "a.png (20,30,3) 1\n")
    (folder / part).unlink()
    os.mkfifo(folder / part)
    with pytest.raises(ImageError, match=f"{part} does not exist"):
        LmdbSource(folder)


def test_a_list_of_names_without_end_is_not_read(tmp_path, little_memory):
    folder = an_lmdb(tmp_path / "x.lmdb", "")
    os.truncate(folder / "meta_info.txt", 1 << 40)
    with pytest.raises(ImageError, match=r"meta_info\.txt: 1,099,511,627,776 bytes"):
        LmdbSource(folder)


def damage_and_read(folder, good: bytes, changes: list[tuple[int, bytes]], length: int) -> None:
    """Read an LMDB of these bytes in a process of its own, which must end by itself."""
    data = bytearray(good)
    for at, new in changes:
        data[at % len(data) : at % len(data) + len(new)] = new
    (folder / "data.mdb").write_bytes(data[:length])
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with contextlib.suppress(ImageError):
                source = LmdbSource(folder)
                for index in range(len(source.names)):
                    source.read(index)
            code = 0
        finally:
            os._exit(code)  # whatever happened: the rest of the tests is the parent's
    assert os.waitpid(pid, 0)[1] == 0


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=16)), max_size=8)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A whole LMDB, and its bytes."""
    root = tmp_path_factory.mktemp("packed")
    (root / "hr").mkdir()
    names = [f"{number:02d}.png" for number in range(12)]
    for name in names:
        (root / "hr" / name).write_bytes(encoded("PNG"))
    write_lmdb(root / "hr", names, root / "x.lmdb", 1)
    return root / "x.lmdb", (root / "x.lmdb/data.mdb").read_bytes()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 1 << 30, 300_000], ids=hex)
def test_a_value_that_claims_to_be_larger_than_the_file_does_not_kill_the_process(packed, size):
    folder, data = packed
    at = data.index(b"00\x89PNG")
    damage_and_read(folder, data, [(at - 8, struct.pack("<I", size))], len(data))


@pytest.mark.parametrize("page_size", [0, 1, 512, 1 << 20, 1 << 31])
def test_a_page_size_that_is_none_does_not_kill_the_process(packed, page_size):
    folder, data = packed
    damage_and_read(folder, data, [(at + 40, struct.pack("<I", page_size)) for at in (0, 4096)], len(data))


@settings(SHORT, max_examples=15)
@given(changes=CHANGES, kept=st.sampled_from([1.0, 1.0, 0.9, 0.3, 0.01]))
def test_any_lmdb_is_read_or_refused(packed, changes, kept):
    damage_and_read(*packed, changes, int(kept * len(packed[1])))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@LONG
@given(changes=CHANGES, kept=st.floats(0, 1))
def test_any_lmdb_is_read_or_refused_at_length(packed, changes, kept):
    damage_and_read(*packed, changes, int(kept * len(packed[1])))


# --------------------------------------------------------------------------------------------- LR sets and sub-images
def test_an_lr_set_only_vouches_for_files_that_were_asked_for(tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded("PNG"))
    digest = sha256(encoded("PNG")).hexdigest()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/c.png").write_bytes(encoded("PNG"))
    (tmp_path / "set/SHA256SUMS").write_text(f"{digest}  ../secret.png\n{'0' * 64}  a.png\n" + "x" * 10_000)
    with pytest.raises(ImageError, match=r"b\.png is not listed in SHA256SUMS"):
        LRSet(str(tmp_path / "set"), ["b.png"])


@pytest.mark.timeout(20)
def test_a_pipe_as_manifest_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "SHA256SUMS")
    with pytest.raises(ImageError, match="SHA256SUMS cannot be read"):
        LRSet(str(tmp_path), ["a.png"])


LINE = {"stem": "a", "source": "a.png", "stamp": [1, 2], "num_parts": 1}


@pytest.mark.parametrize(
    "line", [5, "abcd", [], {}, LINE | {"num_parts": 10**12}, LINE | {"num_parts": "1"}, LINE | {"source": 7}, {"a": 1}]
)
def test_a_folder_of_sub_images_with_another_manifest_is_refused(tmp_path, line):
    sizes = Sizes(16, 8, 0)
    manifest = tmp_path / "prepare_data.jsonl"
    manifest.write_text(f"{json.dumps(sizes._asdict())}\n{json.dumps(LINE)}\n")
    assert list(read_manifest(tmp_path, sizes)) == ["a"]
    manifest.write_text(f"{json.dumps(sizes._asdict())}\n{json.dumps(line)}\n")
    with pytest.raises(UserError, match="name a new folder, or delete this one"):
        read_manifest(tmp_path, sizes)


def test_a_manifest_with_paths_upwards_deletes_nothing(tmp_path):
    sizes = Sizes(16, 8, 0)
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr/a.png").write_bytes(encoded("PNG"))
    (tmp_path / "mine_s001.png").write_bytes(b"precious")
    (tmp_path / "sub").mkdir()
    entry = LINE | {"stem": "../mine", "source": "../mine.png"}
    (tmp_path / "sub/prepare_data.jsonl").write_text(f"{json.dumps(sizes._asdict())}\n{json.dumps(entry)}\n")
    assert cut_all([str(tmp_path / "hr")], tmp_path / "sub", sizes, 1) == (0, 1)
    assert (tmp_path / "mine_s001.png").read_bytes() == b"precious"


def test_own_images_are_checked_as_others_are(tmp_path, little_memory):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/a.png").write_bytes(zeros(12_000, 12_000))
    with pytest.raises(ImageError, match=r"a\.png: 12000x12000 is more than"):
        LQDataset({"name": "x", "dataroot_lq": str(tmp_path / "own"), "scale": 4})


# ------------------------------------------------------------------------------------------------------------ fuzzing
ENCODED = [
    encoded("PNG"),
    encoded("JPEG"),
    encoded("JPEG", progressive=True),
    encoded("BMP"),
    encoded("WEBP"),
    encoded("TIFF", compression="tiff_lzw"),
    encoded("PPM"),
    cv2.imencode(".png", RGB.astype(np.uint16))[1].tobytes(),
    cv2.imencode(".tiff", RGB.astype(np.uint16))[1].tobytes(),
]


def check_any_image(data):
    with contextlib.suppress(ImageError):
        image = decode_rgb8(np.frombuffer(data, np.uint8), "x")
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.size


ANY_IMAGE = st.binary(max_size=40) | st.sampled_from(ENCODED).flatmap(damaged)


@settings(SHORT, max_examples=300)
@given(ANY_IMAGE)
def test_any_bytes_are_an_image_or_refused(data):
    check_any_image(data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(LONG, max_examples=50_000)
@given(ANY_IMAGE)
def test_any_bytes_are_an_image_or_refused_at_length(data):
    check_any_image(data)


@pytest.mark.parametrize("tag", [256, 257], ids=["width", "height"])
def test_a_tiff_with_two_widths_or_heights_is_one_line(tag):
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(file, "TIFF")
    entry = struct.pack("<HHI", tag, 3, 1)  # SHORT
    data = file.getvalue().replace(struct.pack("<HHI", tag, 4, 1), entry).replace(entry, struct.pack("<HHI", tag, 3, 2))
    for read in (decode_rgb8, image_size):
        with pytest.raises(ImageError, match=r"^x: "):
            read(np.frombuffer(data, np.uint8), "x")


@pytest.mark.timeout(30)
def test_a_tiff_of_millions_of_strips_that_are_not_there_is_one_line():
    data = bytearray(8 + 2 + 9 * 12 + 4 + 20)
    data[:8] = b"II*\0\x08\0\0\0"
    tags = {256: 5, 257: 2**24, 258: 1, 259: 1, 262: 1, 273: 122, 277: 1, 278: 4, 279: 20}
    data[8:10] = len(tags).to_bytes(2, "little")
    for number, (tag, value) in enumerate(tags.items()):
        struct.pack_into("<HHII", data, 10 + 12 * number, tag, 4, 1, value)
    started = time.process_time()
    with pytest.raises(ImageError, match=r"^x: .*missing"):
        decode_rgb8(np.frombuffer(bytes(data), np.uint8), "x")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("words", [["3" * 46], ["1" * 10**6, *["1"] * 10**5]], ids=["beyond 64 bits", "one long"])
def test_a_plain_pnm_with_a_long_number_is_one_line(words, little_memory):
    data = f"P3\n6\n5 4\n{' '.join(words)}".encode()
    with pytest.raises(ImageError, match=r"^x: "):
        decode_rgb8(np.frombuffer(data, np.uint8), "x")
