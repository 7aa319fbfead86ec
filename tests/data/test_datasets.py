from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from basicsr.utils import get_root_logger
from PIL import Image
from scipy.stats import kstest
from torch.utils.data import DataLoader, default_collate

from mrda_data import BenchmarkDataset, GTDataset
from mrda_data.gt_dataset import crops
from mrda_data.images import ImageError
from mrda_data.protocols import protocol_cases
from mrda_data.sources import BUNDLED, BundledSource, FolderSource, check_source
from mrda_pipeline.sampler import StepSampler


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.PNG", "sub/c.jpg", "sub/deeper/d.bmp"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    (tmp_path / "images/notes.txt").write_text("no image")
    return tmp_path / "images"


def options(folder, **changes):
    return {"dataroot_gt": str(folder), "gt_size": 16, "use_hflip": True, "use_rot": True, "manual_seed": 0, **changes}


def test_folders_are_read_recursively_sorted_and_filtered(folder):
    assert FolderSource(folder).names == ["a.PNG", "b.png", "sub/c.jpg", "sub/deeper/d.bmp"]


def test_bundled_photographs():
    for split, files in BUNDLED.items():
        source = BundledSource(split)
        assert source.names == [name.rsplit("/", 1)[1] for _, name in files]
        assert min(min(source.read(i).shape[:2]) for i in range(len(source.names))) >= 300
    names = {split: BundledSource(split).names for split in BUNDLED}
    assert not set(names["train"]) & set(names["test"])
    motorcycles = [split for split, found in names.items() for name in found if "motorcycle" in name]
    assert len(motorcycles) == 2
    assert len(set(motorcycles)) == 1


def test_a_crop_is_part_of_its_image_up_to_symmetry(folder):
    dataset = GTDataset(options(folder))
    image = torch.from_numpy(dataset.source.read(dataset._image_index(5))).permute(2, 0, 1)
    crops = image.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 16, 16)
    gt = dataset[5]["gt"]
    symmetries = [torch.rot90(x, k, (1, 2)) for x in (gt, gt.flip(2)) for k in range(4)]
    assert any((crops == x).flatten(1).all(1).any() for x in symmetries)


def test_samples_depend_on_seed_and_number_alone(folder):
    one, two = GTDataset(options(folder)), GTDataset(options(folder))
    list(map(two.__getitem__, range(20)))
    assert torch.equal(one[9]["gt"], two[9]["gt"])
    assert not torch.equal(one[9]["gt"], GTDataset(options(folder, manual_seed=1))[9]["gt"])


def batch_of(dataset, samples):
    """What is trained on, of these items as a DataLoader brings them."""
    return crops(default_collate([dataset[i] for i in samples]), torch.device("cpu"))


def test_a_batch_is_trained_on_as_float_in_0_1_whatever_the_default_dtype(folder):
    dataset = GTDataset(options(folder))
    levels = torch.stack([dataset[i]["gt"] for i in range(3)])
    assert levels.dtype == torch.uint8
    plain = batch_of(dataset, range(3))
    assert torch.equal(plain, levels.float() / 255)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(batch_of(dataset, range(3)), plain.double())
    finally:
        torch.set_default_dtype(torch.float32)


def test_contrast_is_multiplied_about_the_mean_of_each_crop(folder):
    plain = batch_of(GTDataset(options(folder)), range(5))
    for factor in (0.5, 1.0, 3.0):
        changed = batch_of(GTDataset(options(folder, contrast=[factor] * 2)), range(5))
        for before, after in zip(plain, changed, strict=True):
            centre = before.sum() / before.numel()
            torch.testing.assert_close(after, torch.clamp(factor * before + (1 - factor) * centre, 0, 1))


def test_contrast_has_a_log_uniform_factor_for_each_crop(folder):
    plain, changed = (
        batch_of(GTDataset(options(folder, **more)), range(300)) for more in ({}, {"contrast": [0.2, 0.8]})
    )
    factors = (changed.std((1, 2, 3)) / plain.std((1, 2, 3))).numpy()
    assert kstest(np.log(factors), "uniform", (np.log(0.2), np.log(4))).pvalue > 0.01


def test_every_image_is_used_once_an_epoch_and_epochs_differ(folder):
    dataset = GTDataset(options(folder))
    epochs = [tuple(dataset._image_index(4 * e + i) for i in range(4)) for e in range(20)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len(set(epochs)) > 5
    assert not torch.equal(dataset[0]["gt"], dataset[4]["gt"])


def test_workers_change_nothing(folder):
    dataset = GTDataset(options(folder))
    batches = [
        [batch["gt"] for batch in DataLoader(dataset, batch_sampler=StepSampler(3, 2, 6), num_workers=workers)]
        for workers in (0, 2)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


@pytest.mark.parametrize(("hflip", "rot", "distinct"), [(False, False, 1), (True, False, 4), (True, True, 8)])
def test_augmentations(tmp_path, hflip, rot, distinct):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    dataset = GTDataset(options(tmp_path, gt_size=8, use_hflip=hflip, use_rot=rot))
    assert len({dataset[i]["gt"].numpy().tobytes() for i in range(100)}) == distinct


def test_offenders_are_named_together(folder):
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:1000])
    Image.new("RGB", (15, 40)).save(folder / "small.png")
    with pytest.raises(ImageError) as caught:
        GTDataset(options(folder))
    assert "broken.png: cannot be decoded" in str(caught.value)
    assert "small.png: 40x15 pixels, at least 16x16 are needed" in str(caught.value)


def damage(folder, count):
    for i in range(count):
        (folder / f"broken{i:02d}.png").write_bytes((folder / "b.png").read_bytes()[:1000])


def test_skip_corrupt_leaves_offenders_out_with_one_warning(folder, monkeypatch):
    damage(folder, 12)
    Image.new("RGB", (15, 40)).save(folder / "small.png")
    records, handler = [], logging.Handler()
    handler.emit = records.append
    monkeypatch.setattr(get_root_logger(), "handlers", [handler])
    dataset = GTDataset(options(folder, skip_corrupt=True))
    assert [dataset.source.names[i] for i in dataset.indices] == ["a.PNG", "b.png", "sub/c.jpg", "sub/deeper/d.bmp"]
    (record,) = [record for record in records if record.levelname == "WARNING"]
    message = record.getMessage()
    assert message.startswith("13 of 17 images left out (skip_corrupt): ")
    assert all(f"broken{i:02d}.png: cannot be decoded" in message for i in range(10))
    assert message.endswith("; and 3 more")


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_several_folders_are_one_after_the_other(folder, tmp_path, cache):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("b.png", "z.png"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (40, 50, 3), np.uint8)).save(other / name)
    (other / "a.png").write_bytes(b"none")
    both = GTDataset(options(folder, dataroot_gt=[str(folder), str(other)], skip_corrupt=True, cache=cache))
    first, second = GTDataset(options(folder)), GTDataset(options(other, skip_corrupt=True))
    names = [f"{folder}/{first.source.names[i]}" for i in first.indices] + [f"{other}/b.png", f"{other}/z.png"]
    assert [both.source.names[i] for i in both.indices] == names
    pictures = [part.source.read(i) for part in (first, second) for i in part.indices]
    assert all(np.array_equal(both.source.read(i), picture) for i, picture in zip(both.indices, pictures, strict=True))
    assert len({both._image_index(n) for n in range(6)}) == 6


def test_skip_corrupt_gives_the_items_of_the_remaining_images(folder):
    clean = GTDataset(options(folder))
    before = [clean[i]["gt"] for i in range(12)]
    damage(folder, 3)
    for _ in range(2):  # the second time from the cache
        dataset = GTDataset(options(folder, skip_corrupt=True))
        assert len(dataset) == 4
        assert all(torch.equal(dataset[i]["gt"], gt) for i, gt in enumerate(before))


def test_skip_corrupt_with_nothing_left_is_an_error(folder):
    with pytest.raises(ImageError, match="images that cannot be used"):
        GTDataset(options(folder, gt_size=64, skip_corrupt=True))


def test_a_checked_folder_is_not_decoded_again_until_a_file_changes(folder, monkeypatch):
    check_source(FolderSource(folder), 16)
    read = []
    monkeypatch.setattr(FolderSource, "read", lambda self, i: read.append(self.names[i]) or np.zeros((40, 50, 3)))
    check_source(FolderSource(folder), 16)
    assert read == []
    Image.new("RGB", (50, 41)).save(folder / "b.png")
    check_source(FolderSource(folder), 16)
    assert read == ["b.png"]


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(ImageError, match="nowhere: no such folder"):
        FolderSource(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty: no image in it"):
        FolderSource(tmp_path / "empty")


@pytest.mark.parametrize(("scale", "low", "high"), [(2, 0.8, 1.6), (3, 1.35, 2.4), (4, 1.8, 3.2)])
def test_gaussian8_widths(scale, low, high):
    tasks = [case.task for case in protocol_cases("gaussian8", scale)]
    np.testing.assert_allclose([task["sigma_x"] for task in tasks], np.linspace(low, high, 8), atol=1e-6)
    assert all(task["sigma_x"] == task["sigma_y"] and task["noise_sigma_255"] == 0 for task in tasks)


def test_benchmark_items(folder):
    opt = {"name": "x", "dataroot_gt": str(folder), "scale": 3, "protocol": "gaussian8", "kernel_size": 21}
    dataset = BenchmarkDataset(opt)
    assert len(dataset) == 4 * 8
    item = dataset[9]
    assert item["lq_path"] == "b.png"
    assert item["kernel"] == "sigma1.50"
    assert item["gt"].shape == (3, 39, 48)
    assert item["lq"].shape == (3, 13, 16)
    assert torch.equal(item["lq"], dataset[9]["lq"])


def test_benchmark_images_and_side_can_be_limited(folder):
    opt = {"name": "x", "dataroot_gt": str(folder), "scale": 4, "protocol": "bicubic", "kernel_size": 21}
    dataset = BenchmarkDataset({**opt, "max_images": 2, "max_side": 24})
    assert len(dataset) == 2
    image = torch.from_numpy(dataset.source.read(0)).permute(2, 0, 1).float() / 255
    assert torch.equal(dataset[0]["gt"], image[:, 8:32, 13:37])


def test_a_test_image_too_small_for_the_kernel_is_named(tmp_path):
    Image.new("RGB", (40, 10)).save(tmp_path / "thin.png")
    opt = {"name": "x", "dataroot_gt": str(tmp_path), "scale": 2, "protocol": "gaussian8", "kernel_size": 21}
    with pytest.raises(ImageError, match=r"thin\.png: 10x40 pixels, at least 12x12 are needed"):
        BenchmarkDataset(opt)
