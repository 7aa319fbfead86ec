from __future__ import annotations

import hashlib
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mrda_data import BenchmarkDataset
from mrda_data.images import ImageError
from mrda_data.lr_set import write_lr_set
from mrda_utils.errors import UserError
from scripts.prepare_data import pack


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "sub/b.v1.jpg"):
        path = tmp_path / "hr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (50, 43, 3), dtype=np.uint8)).save(path)
    opt = {"name": "x", "dataroot_gt": str(tmp_path / "hr"), "scale": 3, "protocol": "aniso9_dasr", "kernel_size": 21}
    return BenchmarkDataset(opt)


@pytest.fixture
def lr_set(dataset, tmp_path):
    write_lr_set(dataset, tmp_path / "lr/x")
    return tmp_path / "lr/x"


def test_it_holds_every_lr_image_and_a_manifest_as_sha256sum_writes_it(dataset, lr_set):
    items = [dataset[i] for i in range(len(dataset))]
    names = {"a.png": "a.png", "sub/b.v1.jpg": "sub/b.v1.png"}
    files = {f"{item['kernel']}/{names[item['lq_path']]}": item for item in items}
    assert len(files) == 2 * 27
    for file, item in files.items():
        rgb = cv2.imread(str(lr_set / file))[..., ::-1]
        np.testing.assert_array_equal(rgb, (255 * item["lq"]).round().permute(1, 2, 0).numpy())
    lines = [f"{hashlib.sha256((lr_set / file).read_bytes()).hexdigest()}  {file}\n" for file in sorted(files)]
    assert (lr_set / "SHA256SUMS").read_text() == "".join(lines)
    assert {p.name for p in lr_set.parent.iterdir()} == {"x"}


def test_writing_twice_gives_identical_bytes(dataset, lr_set, tmp_path):
    write_lr_set(dataset, tmp_path / "again")
    assert (tmp_path / "again/SHA256SUMS").read_text() == (lr_set / "SHA256SUMS").read_text()


@pytest.mark.parametrize("kind", ["folder", "lmdb"])
def test_items_read_from_it_are_those_it_was_made_of(dataset, lr_set, kind):
    if kind == "lmdb":
        pack(lr_set, 1)
        shutil.rmtree(lr_set)  # the LMDB has all that is needed
        lr_set = lr_set.with_name("x.lmdb")
    read = BenchmarkDataset({**dataset.opt, "dataroot_lq": str(lr_set)})
    for i in range(len(dataset)):
        made, found = dataset[i], read[i]
        assert made["lq"].stride() == found["lq"].stride()  # else networks may round differently
        assert torch.equal(made.pop("lq"), found.pop("lq"))
        assert torch.equal(made.pop("gt"), found.pop("gt"))
        assert made == found


def test_the_images_are_the_files(dataset, lr_set):
    """Else the two routes would agree whatever the files hold."""
    file = lr_set / "1_2x0.2_0deg/a.png"
    cv2.imwrite(str(file), np.full((16, 14, 3), 51, np.uint8))
    manifest = (lr_set / "SHA256SUMS").read_text().splitlines()
    own = f"{hashlib.sha256(file.read_bytes()).hexdigest()} *./1_2x0.2_0deg/a.png"  # sha256sum -b ./...
    kept = [line for line in manifest if not line.endswith(" 1_2x0.2_0deg/a.png")]
    (lr_set / "SHA256SUMS").write_text("\n".join([*kept, own]))
    read = BenchmarkDataset({**dataset.opt, "dataroot_lq": str(lr_set)})
    assert torch.equal(read[0]["lq"], torch.full((3, 16, 14), 0.2))


def edit_image(folder):
    with (folder / "2_2x1_10deg/a.png").open("ab") as file:
        file.write(b"x")


def remove_image(folder):
    (folder / "2_2x1_10deg/a.png").unlink()


def remove_case(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text("\n".join(line for line in lines if "noise10" not in line))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_image, r"x: 2_2x1_10deg/a\.png was changed: its SHA-256 is not that of SHA256SUMS$"),
        (remove_image, r"x: 2_2x1_10deg/a\.png is missing$"),
        (remove_case, r"1_2x0.2_0deg_noise10/a\.png is not listed in SHA256SUMS; .* \(and 17 more\)$"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), r"x/SHA256SUMS cannot be read; test\.py --save_lr writes"),
    ],
)
def test_damage_is_one_line(dataset, lr_set, damage, message):
    damage(lr_set)
    with pytest.raises(ImageError, match=rf"^dataroot_lq: .*{message}"):
        BenchmarkDataset({**dataset.opt, "dataroot_lq": str(lr_set)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_image, r"x\.lmdb: 2_2x1_10deg/a\.png was changed: its SHA-256 is not that of SHA256SUMS$"),
        (remove_image, r"x\.lmdb: 2_2x1_10deg/a\.png is missing$"),
        (remove_case, r"x\.lmdb: 1_2x0.2_0deg_noise10/a\.png is not listed in SHA256SUMS; .* \(and 17 more\)$"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), r"x\.lmdb/SHA256SUMS cannot be read; "),
    ],
)
def test_damage_before_it_became_an_lmdb_is_one_line(dataset, lr_set, damage, message):
    damage(lr_set)
    pack(lr_set, 1)
    with pytest.raises(ImageError, match=rf"^dataroot_lq: .*{message}"):
        BenchmarkDataset({**dataset.opt, "dataroot_lq": f"{lr_set}.lmdb"})


def test_images_of_another_size_are_named(dataset, lr_set):
    read = BenchmarkDataset({**dataset.opt, "dataroot_lq": str(lr_set), "scale": 2})
    with pytest.raises(ImageError, match=r"a\.png: 16x14 pixels, but a\.png has 50x42 and scale is 2"):
        read[0]


def test_what_another_process_of_the_same_number_writes_is_not_mixed_in(dataset, tmp_path):
    other = tmp_path / "lr" / f".x.{os.getpid()}.tmp/case/of_other_images.png"
    other.parent.mkdir(parents=True)
    other.touch()
    write_lr_set(dataset, tmp_path / "lr/x")
    assert not list(tmp_path.glob("lr/x/case/*"))
    assert other.exists()


def test_an_existing_folder_is_left_alone(dataset, lr_set):
    before = sorted(lr_set.rglob("*"))
    with pytest.raises(UserError, match=r"--save_lr: .*x cannot be written \(Directory not empty\)"):
        write_lr_set(dataset, lr_set)
    assert sorted(lr_set.rglob("*")) == before
    assert {p.name for p in lr_set.parent.iterdir()} == {"x"}


def test_images_that_would_be_one_file_are_refused_and_nothing_is_left(dataset, tmp_path):
    Image.new("RGB", (43, 50)).save(tmp_path / "hr/a.bmp")
    with pytest.raises(ImageError, match=r"a\.png: another image has the same name but for the suffix"):
        write_lr_set(BenchmarkDataset(dataset.opt), tmp_path / "lr/x")
    assert not list((tmp_path / "lr").iterdir())


def test_a_folder_that_cannot_be_written_is_named(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--save_lr: .*file/x cannot be written"):
        write_lr_set(dataset, tmp_path / "file/x")
