"""Photographs as cameras and the web leave them, mixtures of degradations, and the protocol `photo`."""

from __future__ import annotations

from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from mrda_data import BenchmarkDataset
from mrda_data.degradation import KINDS, IsotropicDegradation, RealESRGANDegradation, build_degradation
from mrda_data.degradation.photo import Photo, PhotoDegradation, photo_degrade
from mrda_options.registered import degradation as degradation_section
from mrda_utils.resize import imresize
from mrda_utils.seeding import torch_generator

MIX = {
    "type": "mixture",
    "of": [
        {"weight": 3.0, "type": "isotropic", "sigma": [0.5, 1.0]},
        {"weight": 1.0, "type": "photo", "noise_prob": 0.0},
    ],
}


def photograph(height: int = 96, width: int = 112) -> torch.Tensor:
    """(1, 3, height, width), smooth with some texture."""
    noise = np.random.default_rng(0).random((3, height, width))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 3, 3)) * 4 - 1.5 + 0.1 * noise
    return torch.from_numpy(smooth.clip(0, 1))[None].float()


def degraded(gt: torch.Tensor, **task) -> torch.Tensor:
    return photo_degrade(gt, task, 4, torch_generator(0, "photo"))


def pillow_jpeg(image: torch.Tensor, quality: int) -> np.ndarray:
    """The (1, 3, H, W) image, saved and read by Pillow, chroma subsampled."""
    file = BytesIO()
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).transpose(2, 0, 1) / 255


def test_an_empty_task_is_bicubic_downsampling_and_blur_that_of_the_classic_setting():
    gt = photograph()
    expected = (imresize(gt, 1 / 4).clamp(0, 1) * 255).round() / 255
    assert torch.equal(degraded(gt), expected)
    classic = IsotropicDegradation(scale=4, sigma=[2.0, 2.0])
    task = {"sigma_x": 2.0, "sigma_y": 2.0, "theta": 0.0, "noise_sigma_255": 0.0}
    assert torch.equal(degraded(gt, sigma=2.0), classic.apply(gt, task, torch_generator(0, "any")))


def test_jpeg_is_nearly_that_of_pillow():
    gt = photograph(128, 128)[:, :1].expand(-1, 3, -1, -1)  # gray: programs upsample chroma each in their way
    for quality in (30, 60):
        theirs, ours = pillow_jpeg(degraded(gt), quality), degraded(gt, jpeg_quality=quality)[0].numpy()
        loss = np.abs(degraded(gt)[0].numpy() - theirs).mean()
        assert np.abs(ours - theirs).mean() < 0.35 * loss  # with the axes of the tables exchanged: 0.65 and more


def test_noise_has_the_level_of_the_task():
    gray = torch.full((1, 3, 512, 512), 0.5)
    noisy = degraded(gray, noise_sigma_255=10.0, gray_noise=False) * 255
    assert noisy.std().item() == pytest.approx(10, rel=0.02)
    same = degraded(gray, noise_sigma_255=10.0, gray_noise=True)
    assert torch.equal(same[:, 0], same[:, 1])
    assert not torch.equal(noisy[:, 0], noisy[:, 1])
    clean = degraded(photograph())  # of 256 grays: white stands for as many photons
    photons = (degraded(photograph(), poisson_scale=0.5, gray_noise=False) - clean) * 255
    assert photons.std().item() == pytest.approx(0.5 * 255 * (clean.mean().item() / 256) ** 0.5, rel=0.1)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [0.7, 1.0, 2.0, 6.0])
def test_an_image_that_was_passed_on_has_the_size_of_lq(mode, factor):
    lq = degraded(photograph(), second_resize=factor, resize_mode=mode)
    assert lq.shape == (1, 3, 24, 28)
    plain = degraded(photograph())
    assert (lq - plain).abs().mean() < 0.05  # and shows the same
    if factor == 0.7:  # a detour over fewer pixels loses detail
        assert lq.diff(dim=3).abs().mean() < 0.95 * plain.diff(dim=3).abs().mean()


def test_sharpening_adds_the_difference_to_a_blur():
    gt = photograph()
    passed_on = {"second_resize": 1.0, "resize_mode": "bicubic"}
    plain = degraded(gt, **passed_on)
    sharper = degraded(gt, **passed_on, sharpen_amount=0.8)
    blurred = scipy.ndimage.gaussian_filter(plain[0].double().numpy(), (0, 1, 1), mode="mirror", truncate=3)
    expected = plain[0].numpy() + 0.8 * (plain[0].numpy() - blurred)
    np.testing.assert_allclose(sharper[0].numpy(), expected.clip(0, 1), atol=2.1 / 255)  # both are rounded
    assert (sharper - plain).abs().mean() > 1 / 255


def test_draws_have_the_chances_and_ranges_of_the_options():
    degradation, n = PhotoDegradation(scale=4), 4000
    tasks = [degradation.sample(torch_generator(0, "task", i)) for i in range(n)]
    share = {key: sum(key in task for task in tasks) / n for key in ("sigma", "jpeg_quality", "second_resize")}
    assert share == pytest.approx({"sigma": 0.5, "jpeg_quality": 0.6, "second_resize": 0.3}, abs=0.03)
    assert sum(not task for task in tasks) / n == pytest.approx(0.5 * 0.5 * 0.4 * 0.7, abs=0.02)  # left alone
    assert not any("sharpen_amount" in task and "second_resize" not in task for task in tasks)
    assert not any("noise_sigma_255" in task and "poisson_scale" in task for task in tasks)
    options = Photo(type="photo")
    for key in ("sigma", "noise_sigma_255", "poisson_scale", "jpeg_quality", "second_resize", "second_jpeg_quality"):
        values = [task[key] for task in tasks if key in task]
        low, high = getattr(options, key)
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high


def test_a_mixture_draws_components_by_weight_and_degrades_as_they_do():
    options = TypeAdapter(degradation_section()).validate_python(MIX).model_dump()
    mixture, gt = build_degradation(options, 4), photograph()
    tasks = [mixture.sample(torch_generator(0, "task", i)) for i in range(2000)]
    counts = Counter(task["component"] for task in tasks)
    assert counts[0] / 2000 == pytest.approx(0.75, abs=0.03)
    photo = next(task for task in tasks if task["component"] == 1 and "jpeg_quality" in task)
    own = {key: value for key, value in photo.items() if key != "component"}
    assert torch.equal(mixture.apply(gt, photo, torch_generator(0, "photo")), degraded(gt, **own))
    assert all("noise_sigma_255" not in task for task in tasks if task["component"] == 1)
    assert mixture.sample(torch_generator(0, "task", 5)) == tasks[5]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ([{"weight": 1.0, "type": "foto"}], r"type: 'foto' cannot be mixed, did you mean 'photo'\?"),
        ([{"weight": 1.0, "type": "mixture", "of": []}], r"type: 'mixture' cannot be mixed"),
        ([{"type": "photo"}], "weight"),
        ([{"weight": 0.0, "type": "photo"}], "weight"),
        ([{"weight": 1e308, "type": "photo"}, {"weight": 1e308, "type": "bicubic"}], "weight"),  # the sum is infinite
        ([{"weight": 1.0, "type": "photo", "sigmma": [1.0, 2.0]}], "unknown key 'sigmma', did you mean 'sigma'"),
        ([{"weight": 1.0, "type": "isotropic", "sigma": [3.0, 2.0]}], "needs 0 <= low <= high"),
        ([], "at least 2"),
    ],
)
def test_mistakes_in_a_mixture_are_named(of, message):
    others = [{"weight": 1.0, "type": "bicubic"}] if of else []
    with pytest.raises(ValidationError, match=message):
        KINDS["mixture"].options.model_validate({"type": "mixture", "of": of + others})


def test_the_photo_protocol_has_ten_kinds_and_draws_realesrgans_for_each_image():
    opt = {"dataroot_gt": "bundled:test", "scale": 4, "protocol": "photo", "kernel_size": 21}
    dataset, again = (BenchmarkDataset({**opt, "name": "T", "max_images": 2, "max_side": 96}) for _ in range(2))
    assert len(dataset.cases) == 10
    assert len(dataset) == 20
    items = [dataset[i] for i in range(20)]
    assert all(torch.equal(item["lq"], again[i]["lq"]) for i, item in enumerate(items))
    expected = (imresize(items[0]["gt"][None], 1 / 4).clamp(0, 1) * 255).round() / 255
    assert torch.equal(items[0]["lq"], expected[0])  # "clean"
    assert [items[i]["task"] for i in (9, 19)] == [None, None]
    degradation = RealESRGANDegradation(scale=4)
    for i in (9, 19):
        generator = torch_generator(0, f"noise {items[i]['lq_path'].rpartition('.')[0]}", 9)
        task = degradation.sample(generator)
        assert torch.equal(items[i]["lq"], degradation.apply(items[i]["gt"][None], task, generator)[0])
