from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil

import lmdb
import numpy as np
import pytest
import torch
from basicsr.utils import FileClient, imfrombytes
from PIL import Image
from torch.utils.data import DataLoader

from mrda_data import BenchmarkDataset, GTDataset, lmdb_source
from mrda_data.images import ImageError
from mrda_data.lmdb_source import LmdbSource, write_lmdb
from mrda_data.sources import FolderSource, check_source, open_source
from mrda_pipeline.sampler import StepSampler
from mrda_utils.errors import UserError

RNG = np.random.default_rng(0)


def noise(height=40, width=50):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    noise().save(folder / "b.png")
    noise().save(folder / "a b-Ä.v1.PNG")
    noise().save(folder / "sub/c.jpg")
    noise().convert("L").save(folder / "sub/gray.png")
    noise().convert("RGBA").save(folder / "a.png")
    return folder


@pytest.fixture
def packed(folder):
    target = folder.with_name("images.lmdb")
    write_lmdb(folder, FolderSource(folder).names, target)
    return target


def train_options(root, **changes):
    return {"dataroot_gt": str(root), "gt_size": 16, "use_hflip": True, "use_rot": True, "manual_seed": 0, **changes}


def test_a_folder_and_its_lmdb_give_equal_training_items(folder, packed):
    one, two = GTDataset(train_options(folder)), GTDataset(train_options(f"{packed}/"))
    assert one.source.names == two.source.names
    assert isinstance(two.source, LmdbSource)
    assert all(torch.equal(one[i]["gt"], two[i]["gt"]) for i in range(15))


def test_a_folder_and_its_lmdb_give_equal_test_items(folder, packed):
    opt = {"name": "x", "scale": 2, "protocol": "gaussian8", "kernel_size": 21}
    one, two = (BenchmarkDataset({**opt, "dataroot_gt": str(root)}) for root in (folder, packed))
    assert len(one) == len(two) == 5 * 8
    for a, b in zip((one[i] for i in range(40)), (two[i] for i in range(40)), strict=True):
        assert torch.equal(a["gt"], b["gt"])
        assert torch.equal(a["lq"], b["lq"])
        assert (a["lq_path"], a["kernel"]) == (b["lq_path"], b["kernel"])


def test_it_has_basicsr_s_layout_and_basicsr_reads_it(folder, packed):
    assert {path.name for path in packed.iterdir()} == {"data.mdb", "lock.mdb", "meta_info.txt"}
    assert "b.png (40,50,3) 0" in (packed / "meta_info.txt").read_text(encoding="utf-8").splitlines()
    client = FileClient("lmdb", db_paths=[str(packed)], client_keys=["gt"])
    theirs = imfrombytes(client.get("b", "gt"))[..., ::-1]
    np.testing.assert_array_equal(theirs, np.array(Image.open(folder / "b.png")))


def test_values_are_the_files_byte_for_byte(folder, packed):
    with lmdb.open(str(packed), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert transaction.stat()["entries"] == 5
        for name in FolderSource(folder).names:
            assert transaction.get(os.path.splitext(name)[0].encode()) == (folder / name).read_bytes()


def test_a_handwritten_lmdb_of_basicsr_s_kind_is_read_in_order_of_names(tmp_path):
    images = {"z": np.full((4, 5, 3), 9, np.uint8), "y": np.full((6, 7, 3), 8, np.uint8)}
    with lmdb.open(str(tmp_path / "x.lmdb"), map_size=1 << 20) as environment, environment.begin(write=True) as t:
        for key, image in images.items():
            Image.fromarray(image).save(tmp_path / "a.png")
            t.put(key.encode(), (tmp_path / "a.png").read_bytes())
    (tmp_path / "x.lmdb/meta_info.txt").write_text("z.png (4,5,3) 1\r\ny.png (6,7,3) 1\n\n")
    source = open_source(str(tmp_path / "x.lmdb"))
    assert source.names == ["y.png", "z.png"]
    np.testing.assert_array_equal(source.read(0), images["y"])
    np.testing.assert_array_equal(source.read(1), images["z"])


def test_workers_and_a_second_data_set_change_nothing(packed):
    dataset, other = GTDataset(train_options(packed)), GTDataset(train_options(packed))
    validation = {"dataroot_gt": str(packed), "name": "x", "scale": 2, "protocol": "bicubic", "kernel_size": 21}
    item = BenchmarkDataset(validation)[0]  # opened before the workers start
    sampler = StepSampler(3, 0, 4)
    alone = [batch["gt"] for batch in DataLoader(dataset, batch_sampler=sampler)]
    workers = DataLoader(dataset, batch_sampler=sampler, num_workers=2)
    assert all(torch.equal(a, batch["gt"]) for a, batch in zip(alone, workers, strict=True))
    assert torch.equal(other[0]["gt"], dataset[0]["gt"])  # the workers have closed nothing of ours
    assert torch.equal(item["lq"], BenchmarkDataset(validation)[0]["lq"])


def test_a_data_set_that_has_read_can_be_sent_to_a_spawned_worker(packed):
    dataset = GTDataset(train_options(packed))
    item = dataset[0]["gt"]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0]["gt"], item)


def test_a_child_does_not_use_its_parent_s_environment(packed):
    source = LmdbSource(packed)
    source.read(0)
    ours = lmdb_source._environment(source._data)

    def child(queue):
        queue.put((lmdb_source._environment(source._data) is ours, source.read(0).shape))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=30) == (False, source.read(0).shape)
    process.join()


def test_another_path_to_an_open_lmdb_is_no_second_environment(packed):
    link = packed.with_name("link.lmdb")
    link.symlink_to(packed, target_is_directory=True)
    np.testing.assert_array_equal(LmdbSource(packed).read(1), LmdbSource(link).read(1))


def test_the_map_grows_with_its_content(folder, monkeypatch):
    monkeypatch.setattr(lmdb_source, "FIRST_MAP_SIZE", 1 << 15)
    monkeypatch.setattr(lmdb_source, "_IMAGES_A_COMMIT", 2)
    target = folder.with_name("grown.lmdb")
    write_lmdb(folder, FolderSource(folder).names, target, workers=1)
    assert (target / "data.mdb").stat().st_size > 1 << 15
    check_source(LmdbSource(target), 40)


def test_a_checked_lmdb_is_not_decoded_again_until_data_mdb_changes(packed, monkeypatch):
    check_source(LmdbSource(packed), 16)
    read = []
    monkeypatch.setattr(LmdbSource, "read", lambda self, i: read.append(i) or np.zeros((40, 50, 3)))
    check_source(LmdbSource(packed), 16)
    assert read == []
    os.utime(packed / "data.mdb")
    check_source(LmdbSource(packed), 16)
    assert sorted(read) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.png", "meta_info.txt line 3: expected 'name.png (height,width,channels) n', found 'b.png'"),
        ("b.png (40,50,3)", "meta_info.txt line 3: expected"),
        ("b.jpg (40,50,3) 1\nb.png (40,50,3) 1", "meta_info.txt line 4: key 'b' appears twice"),
    ],
)
def test_damaged_lists_of_names_are_refused(packed, line, message):
    text = (packed / "meta_info.txt").read_text(encoding="utf-8").splitlines()
    assert text[2].startswith("b.png")
    (packed / "meta_info.txt").write_text("\n".join([*text[:2], line, *text[3:]]), encoding="utf-8")
    with pytest.raises(ImageError) as caught:
        LmdbSource(packed)
    assert str(caught.value).startswith(str(packed))
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_list_is_refused(packed, content):
    (packed / "meta_info.txt").write_bytes(content)
    with pytest.raises(ImageError, match="no image in it"):
        LmdbSource(packed)


def test_a_list_that_is_no_text_is_refused(packed):
    (packed / "meta_info.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImageError, match=r"meta_info\.txt: cannot be read"):
        LmdbSource(packed)


@pytest.mark.parametrize("part", ["data.mdb", "meta_info.txt"])
def test_a_missing_part_is_named(packed, part):
    (packed / part).unlink()
    with pytest.raises(ImageError, match=f"{part} does not exist"):
        LmdbSource(packed)


def test_a_missing_lmdb_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.lmdb does not exist"):
        open_source(str(tmp_path / "none.lmdb"))


def test_missing_keys_and_wrong_bytes_name_lmdb_and_key(packed):
    with lmdb.open(str(packed)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"b")
        transaction.put(b"sub/c", b"no image")
    with pytest.raises(ImageError) as caught:
        GTDataset(train_options(packed))
    assert f"{packed}: key 'b' of meta_info.txt is not in data.mdb" in str(caught.value)
    assert f"{packed}: key 'sub/c': cannot be decoded" in str(caught.value)
    assert len(GTDataset(train_options(packed, skip_corrupt=True))) == 3


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_data_mdb_is_an_error_and_no_crash(packed, damage):
    data = packed / "data.mdb"
    os.truncate(data, {"truncated": data.stat().st_size - 5000, "garbage": 0, "empty": 0}[damage])
    if damage == "garbage":
        data.write_bytes(b"x" * 10000)
    with pytest.raises(ImageError, match=r"images\.lmdb: key 'b' cannot be read"):
        LmdbSource(packed).read(2)


def test_names_that_would_share_a_key_are_refused(folder):
    noise().save(folder / "b.jpg")
    with pytest.raises(ImageError, match=r"b\.jpg and b\.png have the same key"):
        write_lmdb(folder, FolderSource(folder).names, folder.with_name("x.lmdb"))
    assert not folder.with_name("x.lmdb").exists()


@pytest.mark.parametrize("name", ["a\nb.png", "x" * 300 + "/" + "y" * 250 + ".png"])
def test_names_that_the_layout_cannot_hold_are_refused(tmp_path, name):
    with pytest.raises(ImageError, match="a name that no LMDB can store"):
        write_lmdb(tmp_path, [name], tmp_path / "x.lmdb")


def test_a_failure_leaves_nothing_behind(folder):
    (folder / "z.png").write_bytes(b"no image")
    before = sorted(folder.parent.iterdir())
    with pytest.raises(ImageError, match=r"z\.png: cannot be decoded"):
        write_lmdb(folder, FolderSource(folder).names, folder.with_name("x.lmdb"))
    assert sorted(folder.parent.iterdir()) == before


def test_a_target_that_cannot_be_written_is_one_line(folder):
    with pytest.raises(UserError, match=r"x\.lmdb: cannot be written"):
        write_lmdb(folder, FolderSource(folder).names, folder / "nowhere/x.lmdb")


def test_left_overs_of_a_killed_run_go(folder):
    left_over = folder.with_name(".x.lmdb.1.tmp")
    shutil.copytree(folder, left_over)
    write_lmdb(folder, FolderSource(folder).names, folder.with_name("x.lmdb"))
    assert not left_over.exists()
