from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections import namedtuple
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mrda_data import GTDataset, images, pixel_cache
from mrda_data.images import ImageError
from mrda_data.lmdb_source import write_lmdb
from mrda_data.pixel_cache import CachedSource
from mrda_data.sources import FolderSource, open_source
from mrda_options.options import parse_yaml
from mrda_pipeline.sampler import StepSampler
from mrda_utils.errors import UserError
from tests.model.conftest import stage_options, train

KINDS = ("ram", "mmap")


@pytest.fixture
def folder(tmp_path):
    """Images of several sizes and kinds."""
    rng = np.random.default_rng(0)
    (tmp_path / "images/sub").mkdir(parents=True)
    for number, (name, mode) in enumerate({"b.png": "RGB", "a.jpg": "RGB", "sub/c.png": "L", "d.bmp": "RGB"}.items()):
        pixels = rng.integers(0, 256, (40 + number, 50 - 2 * number, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that were decoded, in any order."""
    names, original = [], images.decode
    monkeypatch.setattr(
        images, "decode", lambda data, name: names.append(os.path.basename(name)) or original(data, name)
    )
    return names


def options(root, **changes):
    return {"dataroot_gt": str(root), "gt_size": 16, "use_hflip": True, "use_rot": True, "manual_seed": 0, **changes}


def items(dataset, count=24):
    return torch.stack([dataset[i]["gt"] for i in range(count)])


def the_file(tmp_path):
    (path,) = (tmp_path / "cache/mrda").glob("pixels-*.bin")
    return path


# ---------------------------------------------------------------------------------------------------------- equal crops
@pytest.mark.parametrize("kind", KINDS)
def test_crops_are_those_without_a_cache(folder, kind):
    for changes in ({}, {"gt_size": 40, "use_rot": False}, {"contrast": [0.5, 2.0], "manual_seed": 5}):
        plain = GTDataset(options(folder, **changes))
        kept = GTDataset(options(folder, cache=kind, **changes))
        assert isinstance(kept.source, CachedSource)
        assert torch.equal(items(kept), items(plain))


@pytest.mark.parametrize("kind", KINDS)
def test_an_lmdb_is_kept_like_its_folder(folder, kind):
    packed = folder.with_name("images.lmdb")
    write_lmdb(folder, FolderSource(folder).names, packed)
    assert torch.equal(items(GTDataset(options(packed, cache=kind))), items(GTDataset(options(folder))))


@pytest.mark.parametrize("kind", KINDS)
def test_bundled_photographs_lie_in_memory_as_it_is(kind, tmp_path):
    plain, kept = (GTDataset(options("bundled:train", cache=cache)) for cache in ("none", kind))
    assert type(kept.source) is type(plain.source)
    assert torch.equal(items(kept, 4), items(plain, 4))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_workers_change_nothing(folder, kind):
    sampler = StepSampler(3, 2, 6)
    plain = DataLoader(GTDataset(options(folder)), batch_sampler=sampler)
    kept = DataLoader(GTDataset(options(folder, cache=kind)), batch_sampler=sampler, num_workers=2)
    assert all(torch.equal(a["gt"], b["gt"]) for a, b in zip(plain, kept, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_decoded_once_and_then_looked_at_in_place(folder, kind, decoded):
    dataset = GTDataset(options(folder, cache=kind))
    items(dataset)
    assert sorted(decoded) == ["a.jpg", "b.png", "c.png", "d.bmp"]
    one, two = dataset.source.read(1), dataset.source.read(1)
    assert np.shares_memory(one, two)
    assert not one.flags.writeable
    assert type(one) is np.ndarray


@pytest.mark.parametrize("kind", KINDS)
def test_unusable_images_are_named_and_left_out_as_without_a_cache(folder, kind):
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:1000])
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (15, 40)).save(folder / "small.png")
    messages = []
    for cache in ("none", kind, kind):  # the last one from a file, if there is one
        with pytest.raises(ImageError) as caught:
            GTDataset(options(folder, cache=cache))
        messages.append(str(caught.value))
    assert messages[0].count("\n") == 3
    assert messages[1:] == messages[:1] * 2
    plain, kept = (GTDataset(options(folder, cache=cache, skip_corrupt=True)) for cache in ("none", kind))
    assert [kept.source.names[i] for i in kept.indices] == [plain.source.names[i] for i in plain.indices]
    assert torch.equal(items(kept), items(plain))


# ------------------------------------------------------------------------------------------------------ a file's life
def test_a_file_serves_later_runs_and_other_folders_have_their_own(folder, tmp_path, decoded):
    first = items(GTDataset(options(folder, cache="mmap")))
    decoded.clear()
    assert torch.equal(items(GTDataset(options(folder, cache="mmap"))), first)
    assert decoded == []
    pixels = sum(3 * height * width for height, width in ((40, 50), (41, 48), (42, 46), (43, 44)))
    assert 0 < the_file(tmp_path).stat().st_size - pixels < 1000
    own = tmp_path / "of the option/deeper"
    assert torch.equal(items(GTDataset(options(folder, cache="mmap", cache_folder=str(own)))), first)
    assert len(decoded) == 4
    assert len(list(own.glob("pixels-*.bin"))) == 1
    shutil.copytree(folder, folder.with_name("copy"))
    GTDataset(options(folder.with_name("copy"), cache="mmap"))
    assert len(list((tmp_path / "cache/mrda").glob("pixels-*.bin"))) == 2


def change(folder):
    Image.fromarray(np.full((40, 50, 3), 7, np.uint8)).save(folder / "b.png")


CHANGES = {
    "pixels": change,
    "time": lambda folder: os.utime(folder / "b.png", ns=(1, 1)),
    "more": lambda folder: Image.new("RGB", (50, 50)).save(folder / "e.png"),
    "fewer": lambda folder: (folder / "a.jpg").unlink(),
    "name": lambda folder: (folder / "a.jpg").rename(folder / "z.jpg"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_of_other_images_is_made_anew(folder, what, decoded):
    GTDataset(options(folder, cache="mmap"))
    CHANGES[what](folder)
    plain = GTDataset(options(folder))
    decoded.clear()
    kept = GTDataset(options(folder, cache="mmap"))
    assert len(decoded) == len(plain) == len(kept)
    assert torch.equal(items(kept), items(plain))


def test_another_decoder_decodes_anew(folder, decoded, monkeypatch):
    GTDataset(options(folder, cache="mmap"))
    decoded.clear()
    monkeypatch.setattr(pixel_cache, "VERSIONS", {"imagecodecs": "99.0"})
    GTDataset(options(folder, cache="mmap"))
    assert len(decoded) == 4


def cut(size):
    return lambda path: os.truncate(path, path.stat().st_size + size if size < 0 else size)


def overwrite(where, data):
    def damage(path):
        with path.open("r+b") as file:
            file.seek(where, os.SEEK_END)
            file.write(data)

    return damage


def insert_a_byte(path):
    path.write_bytes(b"\0" + path.read_bytes())


DAMAGES = {
    **{f"cut to {size}": cut(size) for size in (0, 1, 39, 40, 41, 5000)},
    **{f"cut by {-size}": cut(size) for size in (-1, -8, -40, -41, -300, -2000)},
    "index": overwrite(-100, b"x"),
    "hash": overwrite(-20, b"x"),
    "length": overwrite(-8, b"\xff" * 8),
    "zeros": overwrite(-40, bytes(40)),
    "moved": insert_a_byte,
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "garbage": lambda path: path.write_bytes(os.urandom(30000)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_truncated_file_is_made_anew(folder, tmp_path, damage, decoded):
    plain = items(GTDataset(options(folder, cache="mmap")))
    whole = the_file(tmp_path).read_bytes()
    DAMAGES[damage](the_file(tmp_path))
    decoded.clear()
    assert torch.equal(items(GTDataset(options(folder, cache="mmap"))), plain)
    assert len(decoded) == 4
    assert the_file(tmp_path).read_bytes() == whole


def test_the_index_says_where_each_image_lies(folder, tmp_path):
    GTDataset(options(folder, cache="mmap"))
    data = the_file(tmp_path).read_bytes()
    text = data[-40 - int.from_bytes(data[-8:], "little") : -40]
    assert sha256(text).digest() == data[-40:-8]
    index, source, start = json.loads(text), open_source(str(folder)), 0
    for number, (height, width) in enumerate(index["sizes"]):
        image = source.read(number)
        assert image.shape == (height, width, 3)
        assert data[start : start + image.size] == image.tobytes()
        start += image.size
    assert len(data) == start + len(text) + 40


def test_a_run_that_has_the_old_file_open_goes_on_with_it(folder):
    before = GTDataset(options(folder, cache="mmap"))
    first = items(before)
    change(folder)
    assert not torch.equal(items(GTDataset(options(folder, cache="mmap"))), first)
    assert torch.equal(items(before), first)


def test_left_overs_of_killed_runs_go(folder, tmp_path):
    GTDataset(options(folder, cache="mmap"))
    path = the_file(tmp_path)
    left_over = path.with_name(f".{path.name}.1.tmp")
    left_over.write_bytes(b"x")
    path.unlink()
    GTDataset(options(folder, cache="mmap"))
    assert not left_over.exists()


def test_processes_that_start_together_make_one_file(folder, tmp_path):
    context = multiprocessing.get_context("fork")
    queue, begin = context.Queue(), context.Barrier(4)

    def child():
        torch.set_num_threads(1)
        decoded, original = [], images.decode
        images.decode = lambda data, name: decoded.append(name) or original(data, name)
        begin.wait(30)
        queue.put((items(GTDataset(options(folder, cache="mmap")), 8).numpy().tobytes(), len(decoded)))

    processes = [context.Process(target=child) for _ in range(4)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert {crops for crops, _ in results} == {items(GTDataset(options(folder)), 8).numpy().tobytes()}
    assert sorted(count for _, count in results) == [0, 0, 0, 4]
    assert the_file(tmp_path).exists()


def test_a_whole_file_is_read_where_nothing_can_be_written(folder, tmp_path, monkeypatch):
    first = items(GTDataset(options(folder, cache="mmap")))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pixel_cache, "FileLock", refuse)
    assert torch.equal(items(GTDataset(options(folder, cache="mmap"))), first)
    the_file(tmp_path).unlink()
    with pytest.raises(UserError, match=r"pixels-\w+\.bin: cannot be written \(Permission denied\)"):
        GTDataset(options(folder, cache="mmap"))


# ------------------------------------------------------------------------------------------------------------- no room
def test_too_little_memory_is_told_before_anything_is_decoded(folder, decoded, monkeypatch):
    monkeypatch.setattr(pixel_cache, "available_memory", lambda: 23000)
    message = r"datasets\.train\.cache: 'ram' needs 2.34e-05 GB and 2.3e-05 GB are available; take mmap"
    with pytest.raises(UserError, match=message):
        GTDataset(options(folder, cache="ram"))
    assert decoded == []
    monkeypatch.setattr(pixel_cache, "available_memory", lambda: 50000)
    GTDataset(options(folder, cache="ram"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"needs 2.34e-05 GB in each of 3 processes and 5e-05 GB"):
        GTDataset(options(folder, cache="ram"))


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else says so")
def test_available_memory_is_what_linux_says():
    kilobytes = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())["MemAvailable:"]
    assert pixel_cache.available_memory() == pytest.approx(1024 * int(kilobytes), rel=0.2)


def test_too_little_room_on_the_disk_is_told_before_anything_is_decoded(folder, tmp_path, decoded, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: usage(23000))
    with pytest.raises(UserError, match=r"'mmap' needs 2.34e-05 GB in \S+/cache/mrda and 2.3e-05 GB are free; name an"):
        GTDataset(options(folder, cache="mmap"))
    assert decoded == []
    assert not list((tmp_path / "cache/mrda").glob("*.bin"))


@contextmanager
def largest_file(size):
    resource = pytest.importorskip("resource")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


@pytest.mark.parametrize("size", [100, 10000, 23400])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(folder, tmp_path, size):
    with largest_file(size), pytest.raises(UserError, match=r"pixels-\w+\.bin: cannot be written \(File too large\)"):
        GTDataset(options(folder, cache="mmap"))
    assert [path.suffix for path in (tmp_path / "cache/mrda").iterdir()] == [".lock"]


def test_an_image_that_is_exchanged_while_it_is_read_is_left_out(folder, monkeypatch):
    original = FolderSource.size
    monkeypatch.setattr(FolderSource, "size", lambda self, i: (50, 50) if i == 1 else original(self, i))
    for kind in KINDS:
        dataset = GTDataset(options(folder, cache=kind, skip_corrupt=True))
        assert [dataset.source.names[i] for i in dataset.indices] == ["a.jpg", "d.bmp", "sub/c.png"]
        plain = open_source(str(folder))
        assert all(np.array_equal(dataset.source.read(i), plain.read(i)) for i in dataset.indices)


# ------------------------------------------------------------------------------------------------------------ training
def test_a_training_with_a_cache_has_the_weights_of_one_without(folder, tmp_path):
    weights = []
    for kind in ("none", *KINDS):
        opt = stage_options("mln_bicubic", tmp_path / kind, train__total_iter=2)
        opt["datasets"]["train"].update(
            dataroot_gt=str(folder), gt_size=32, cache=kind, cache_folder=str(tmp_path / "c")
        )
        run = train(opt)
        assert parse_yaml((run / f"{opt['name']}.yml").read_text(), "x")["datasets"]["train"]["cache"] == kind
        weights.append(torch.load(run / "models/net_g_latest.pth")["params"])
    for kept in weights[1:]:
        assert all(torch.equal(kept[name], tensor) for name, tensor in weights[0].items())
