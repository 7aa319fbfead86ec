from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import torch.nn.functional as F
from basicsr.data import degradations as basicsr_degradations
from basicsr.models import realesrnet_model
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D

from mrda_data import BenchmarkDataset
from mrda_data.degradation import RealESRGANDegradation, noise
from mrda_data.degradation.jpeg import jpeg
from mrda_data.degradation.kernels import filter2d, gaussian_kernel
from mrda_data.degradation.noise import add_gaussian_noise, add_poisson_noise
from mrda_data.degradation.realesrgan import MODES, blur_kernel, sinc_kernel
from mrda_data.degradation.sharpen import usm_sharpen
from mrda_data.sources import BundledSource
from mrda_utils.seeding import torch_generator

ROUNDS = ("", "second_")


def draw(number, **options):
    return RealESRGANDegradation(scale=4, **options).sample(torch_generator(0, "task", number))


def photograph(height, width, images=1):
    """Crops of a bundled photograph, (images, 3, height, width)."""
    image = torch.from_numpy(BundledSource("test").read(0)).permute(2, 0, 1).float() / 255
    crops = [image[:, 20 * n : 20 * n + height, 100 + 30 * n : 100 + 30 * n + width] for n in range(images)]
    return torch.stack(crops)


def assert_equal(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------- the same as BasicSR's functions
@pytest.mark.parametrize("size", [7, 15, 21])
def test_filter_equals_basicsr_with_its_padded_kernel(size):
    image, kernel = photograph(50, 64, 2), torch.rand(size, size)
    padded = F.pad(kernel / kernel.sum(), ((21 - size) // 2,) * 4)
    assert_equal(filter2d(image, kernel / kernel.sum()), filter2D(image, padded.expand(2, 21, 21)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 30), (9, 10), (11, 11)])
def test_filter_reflects_as_often_as_it_takes(height, width):
    image, kernel = torch.rand(2, 3, height, width, dtype=torch.float64), torch.rand(21, 21, dtype=torch.float64)
    padded = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), mode="reflect"))
    windows = padded.unfold(2, 21, 1).unfold(3, 21, 1)
    torch.testing.assert_close(filter2d(image, kernel), (windows * kernel).sum((-1, -2)))


@pytest.mark.parametrize(("height", "width"), [(100, 72), (26, 200)])
def test_usm_equals_basicsr(height, width):
    gt = photograph(height, width, 2)
    theirs = USMSharp()(gt)
    residual = gt - filter2D(gt, USMSharp().kernel)
    assert ((residual.abs() * 255 - 10).abs() > 1e-4).all()  # else rounding decides where the mask is on
    assert_equal(usm_sharpen(gt), theirs)
    assert (theirs - gt).abs().max() > 0.05


def test_usm_of_any_size_and_of_flat_images():
    assert usm_sharpen(torch.rand(1, 3, 3, 8)).isfinite().all()
    flat = torch.full((1, 3, 12, 40), 0.3)
    torch.testing.assert_close(usm_sharpen(flat), flat)


@pytest.mark.parametrize(("gray", "images"), [(False, 2), (True, 1)])  # BasicSR's gray noise is one map for all images
def test_gaussian_noise_equals_basicsr(gray, images):
    image = photograph(40, 52, images)
    torch.manual_seed(3)
    theirs = basicsr_degradations.add_gaussian_noise_pt(image, 22.0, gray_noise=float(gray))
    assert_equal(add_gaussian_noise(image, 22.0, gray, torch.Generator().manual_seed(3)), theirs)


@pytest.mark.parametrize("gray", [False, True])
def test_poisson_noise_equals_basicsr_on_equal_counts(gray, monkeypatch):
    image = photograph(40, 52, 2)
    image[1] = (image[1] * 8).round() / 8  # few distinct values
    image[0, 0, 0] = 1.2  # as left by a sinc filter

    def torch_s_counts(values, doublings, generator):
        return torch.poisson(values / 255 * 2.0**doublings, generator=generator)

    monkeypatch.setattr(noise, "photon_counts", torch_s_counts)
    torch.manual_seed(3)
    theirs = basicsr_degradations.add_poisson_noise_pt(image, 2.2, gray_noise=float(gray))
    ours = add_poisson_noise(image, 2.2, gray, torch.Generator().manual_seed(3))
    assert_equal(ours, theirs)
    assert (ours - image.clamp(0, 1)).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("value", "doublings"), [(0, 8), (1, 0), (3, 4), (255, 0), (80, 3), (255, 5), (170, 6), (255, 8)]
)
def test_photon_counts_are_poisson_numbers(value, doublings):
    size = 200_000
    values, level = torch.full((2, size // 2), value), torch.full((2, 1), doublings)
    counts = noise.photon_counts(values, level, torch_generator(0, "photons", value)).numpy().ravel()
    reference = scipy.stats.poisson(value / 255 * 2**doublings)
    mean, variance = reference.stats()
    assert abs(counts.mean() - mean) <= 4 * math.sqrt(variance / size)
    assert abs(counts.var() - variance) <= 4 * math.sqrt(
        (variance + 2 * variance**2) / size
    )  # fourth moment of Poisson
    low, high = (int(reference.ppf(p)) for p in (50 / size, 1 - 50 / size))  # the tails are a class each
    classes = np.bincount(counts.clip(low, high), minlength=high + 1)[low:]
    tails = [reference.cdf(low), *reference.pmf(np.arange(low + 1, high)), reference.sf(high - 1)]
    if high > low:
        assert scipy.stats.chisquare(classes, size * np.array(tails)).pvalue > 1e-3
    else:
        assert (counts == low).all()


def test_every_mean_s_urn_holds_the_poisson_probabilities():
    keep, alias = (part.numpy().reshape(9, 256, -1) for part in noise._urns(torch.device("cpu")))
    assert ((keep >= 0) & (keep <= 1)).all()
    for doublings in range(9):
        for value in range(256):
            kept, other = keep[doublings, value], alias[doublings, value]
            found = (kept + np.bincount(other, 1 - kept, len(kept))) / len(kept)
            expected = scipy.stats.poisson.pmf(np.arange(len(kept)), value / 255 * 2**doublings)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
            assert expected.sum() == pytest.approx(1, abs=1e-12)


def test_counts_of_neighbours_are_independent():
    counts = noise.photon_counts(torch.full((4, 50_000), 200), torch.tensor(6), torch_generator(0, "photons")).double()
    assert (torch.corrcoef(counts) - torch.eye(4)).abs().max() < 0.02
    assert torch.corrcoef(torch.stack([counts[0, 1:], counts[0, :-1]]))[0, 1].abs() < 0.02


def test_many_images_have_the_noise_of_their_kind_too(monkeypatch):
    image = torch.full((5, 3, 16, 16), 0.5)
    image[:, 0] = torch.arange(256).view(16, 16) / 255  # so white is 256 photons
    monkeypatch.setattr(noise, "_AT_ONCE", 2 * image[0].numel())
    counts = (add_poisson_noise(image, 1.0, False, torch_generator(0, "many")) - image)[:, 1:]
    assert float(counts.std()) == pytest.approx(math.sqrt(128 / 255 / 256), rel=0.06)
    assert (torch.corrcoef(counts.flatten(1)) - torch.eye(5)).abs().max() < 0.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("add_noise", [add_gaussian_noise, add_poisson_noise])
def test_on_a_gpu_noise_is_repeatable_of_its_own_and_not_waited_for(add_noise):
    image = photograph(64, 64, 2).cuda()
    first = add_noise(image, 3.0, False, torch_generator(0, "t"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = add_noise(image, 3.0, False, torch_generator(0, "t"))
        other = add_noise(image, 3.0, False, torch_generator(1, "t"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    on_cpu = add_noise(image.cpu(), 3.0, False, torch_generator(0, "t"))
    assert not torch.equal(first.cpu(), on_cpu)
    assert float((first - image).std()) == pytest.approx(float((on_cpu - image.cpu()).std()), rel=0.1)


def test_a_generator_of_another_device_is_seeded_by_the_cpu_s(monkeypatch):
    generator = torch_generator(0, "t")
    assert noise.generator_on(torch.device("cpu"), generator) is generator
    seeds = []
    elsewhere = SimpleNamespace(manual_seed=seeds.append)
    monkeypatch.setattr(torch, "Generator", lambda device: elsewhere if device.type == "cuda" else None)
    for _ in range(2):
        noise.generator_on(torch.device("cuda", 0), generator)
    monkeypatch.undo()
    noise_seeds = torch_generator(0, "t")
    assert seeds == [torch.randint(2**63 - 1, (), generator=noise_seeds).item() for _ in range(2)]


@pytest.mark.parametrize("add_noise", [add_gaussian_noise, add_poisson_noise])
def test_every_image_has_noise_of_its_own_and_gray_noise_is_gray(add_noise):
    image = torch.full((2, 3, 8, 8), 0.5)
    coloured, gray = (add_noise(image, 1.0, flag, torch_generator(0, "t")) - image for flag in (False, True))
    assert not torch.equal(coloured[0], coloured[1])
    assert not torch.equal(gray[0], gray[1])
    torch.testing.assert_close(gray[:, :1].expand_as(gray), gray)
    assert not torch.equal(coloured[:, 0], coloured[:, 1])


@pytest.mark.parametrize("quality", [30.0, 50.0, 77.7])
@pytest.mark.parametrize(("height", "width"), [(48, 64), (37, 50)])
def test_jpeg_equals_basicsr_and_leaves_its_tables_alone(quality, height, width):
    image = photograph(height, width, 2)
    reference = DiffJPEG(differentiable=False)
    with torch.no_grad():
        theirs = reference(image, torch.full((2,), quality))
    ours = jpeg(image, quality)
    assert_equal(ours, theirs)
    assert not ours.requires_grad
    assert all(parameter.requires_grad for parameter in reference.parameters())  # BasicSR's own, shared ones
    assert ours.is_contiguous()


def basicsr_feed_data(gt, task, generator, monkeypatch):
    """LQ of BasicSR's own model code, every one of its draws being dictated, noise by our functions."""
    second = {key.removeprefix("second_"): value for key, value in task.items() if key.startswith("second_")}

    def resize(part):
        scale = part["resize_scale"]
        return [*(["keep"] if scale == 1 else ["up" if scale > 1 else "down", scale]), part["resize_mode"]]

    def fire(condition):
        return 0.0 if condition else 1.0

    script = iter(
        [
            *(*resize(task), fire("noise_sigma_255" in task), fire("kernel_type" in second)),
            *(*resize(second), fire("noise_sigma_255" in second), fire(task["final_jpeg_last"])),
            task["final_resize_mode"],
        ]
    )
    draws = SimpleNamespace(choices=lambda *_: [next(script)], choice=lambda _: next(script))
    monkeypatch.setattr(realesrnet_model, "random", draws)
    uniform = SimpleNamespace(random=SimpleNamespace(uniform=lambda *_: next(script)))
    monkeypatch.setattr(realesrnet_model, "np", uniform)
    monkeypatch.setattr(realesrnet_model, "filter2D", lambda image, kernel: filter2D(image.contiguous(), kernel))
    monkeypatch.setattr(
        realesrnet_model,
        "random_add_gaussian_noise_pt",
        lambda image, sigma_range, gray_prob, **_: add_gaussian_noise(image, sigma_range[0], gray_prob, generator),
    )
    monkeypatch.setattr(
        realesrnet_model,
        "random_add_poisson_noise_pt",
        lambda image, scale_range, gray_prob, **_: add_poisson_noise(image, scale_range[0], gray_prob, generator),
    )
    opt = {"gt_usm": False, "scale": 4, "gt_size": gt.shape[-1], "second_blur_prob": 0.5}
    for part, suffix in ((task, ""), (second, "2")):
        opt |= {f"{key}{suffix}": None for key in ("resize_prob", "poisson_scale_range", "noise_range")}
        opt |= {f"resize_range{suffix}": [None, None], f"gaussian_noise_prob{suffix}": 0.5}
        opt[f"noise_range{suffix}"] = [part.get("noise_sigma_255")]
        opt[f"poisson_scale_range{suffix}"] = [part.get("poisson_scale")]
        opt[f"gray_noise_prob{suffix}"] = part["gray_noise"]
        opt[f"jpeg_range{suffix}"] = [part["jpeg_quality"]] * 2
    pulse = torch.ones(1, 1)
    final = task.get("final_sinc_size")
    kernels = {
        "kernel1": blur_kernel(task),
        "kernel2": blur_kernel(second) if "kernel_type" in second else pulse,
        "sinc_kernel": sinc_kernel(task["final_sinc_omega_c"], final) if final else pulse,
    }
    model = SimpleNamespace(is_train=True, opt=opt, device="cpu", jpeger=DiffJPEG(differentiable=False))
    model._dequeue_and_enqueue = lambda: None
    data = {key: kernel.float().expand(len(gt), *kernel.shape) for key, kernel in kernels.items()}
    realesrnet_model.RealESRNetModel.feed_data(model, {"gt": gt, **data})
    assert next(script, "all drawn") == "all drawn"
    return model.lq


@pytest.mark.parametrize("number", range(12))
def test_the_chain_equals_basicsr_on_equal_draws(number, monkeypatch):
    task = draw(number, jpeg_range=[50.0, 95.0], jpeg_range2=[50.0, 95.0], gray_noise_prob=0.5)
    for prefix in ROUNDS:
        task[prefix + "jpeg_quality"] = float(round(task[prefix + "jpeg_quality"]))  # BasicSR holds it in float32
    gt = photograph(160, 160, 2)
    theirs = basicsr_feed_data(gt, task, torch_generator(0, "noise"), monkeypatch)
    ours = RealESRGANDegradation(scale=4, gt_usm=False).apply(gt, task, torch_generator(0, "noise"))
    assert_equal(ours, theirs)


def test_the_tasks_of_the_chain_test_take_every_branch():
    tasks = [draw(number) for number in range(12)]
    assert {task["final_jpeg_last"] for task in tasks} == {True, False}
    assert {"second_kernel_type" in task for task in tasks} == {True, False}
    for prefix in ROUNDS:
        assert {prefix + "poisson_scale" in task for task in tasks} == {True, False}
        assert {task[prefix + "gray_noise"] for task in tasks} == {True, False}
        assert {task[prefix + "resize_mode"] for task in tasks} == set(MODES)


# -------------------------------------------------------------------------------------------------------------- kernels
def test_iso_and_aniso_kernels_are_gaussian():
    shape = {"kernel_size": 15, "sigma_x": 2.5, "sigma_y": 0.8, "theta": 0.6, "beta": 1.0}
    for kind in ("iso", "aniso", "generalized_aniso"):
        kernel = blur_kernel({"kernel_type": kind, **shape})
        torch.testing.assert_close(kernel, gaussian_kernel(2.5, 0.8, 0.6, 15), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "density"),
    [
        ("generalized_aniso", lambda q, beta: math.exp(-0.5 * q**beta)),
        ("plateau_aniso", lambda q, beta: 1 / (1 + q**beta)),
    ],
)
def test_generalized_and_plateau_kernels_are_their_formulas(kind, density):
    shape = {"sigma_x": 2.5, "sigma_y": 0.8, "theta": 0.6, "beta": 1.7}
    kernel = blur_kernel({"kernel_type": kind, "kernel_size": 7, **shape})
    expected = torch.zeros(7, 7, dtype=torch.float64)
    for row in range(7):
        for column in range(7):
            x, y = column - 3, row - 3
            along, across = math.cos(0.6) * x + math.sin(0.6) * y, math.cos(0.6) * y - math.sin(0.6) * x
            expected[row, column] = density((along / 2.5) ** 2 + (across / 0.8) ** 2, 1.7)
    torch.testing.assert_close(kernel, expected / expected.sum(), rtol=0, atol=1e-12)


def test_sinc_kernel_is_the_jinc_of_its_cutoff():
    kernel = sinc_kernel(1.3, 9)
    radius = np.hypot(*np.mgrid[-4:5, -4:5])
    radius[4, 4] = 1e-9
    expected = 1.3 * scipy.special.j1(1.3 * radius) / (2 * math.pi * radius)
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=0, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------------- draws
@pytest.fixture(scope="module")
def tasks():
    degradation = RealESRGANDegradation(scale=4)
    return [degradation.sample(torch_generator(1, "task", number)) for number in range(10000)]


def assert_uniform(values, low, high):
    assert len(values) > 100
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3


def assert_shares(values, shares):
    """Chi-square of what was drawn against these probabilities."""
    observed = [sum(value == wanted for value in values) for wanted in shares]
    assert sum(observed) == len(values)
    expected = [share * len(values) for share in shares.values()]
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize(("prefix", "sigma"), [("", (0.2, 3)), ("second_", (0.2, 1.5))])
def test_kernels_are_drawn_as_published(tasks, prefix, sigma):
    kernels = [
        {key.removeprefix(prefix): value for key, value in task.items()}
        for task in tasks
        if prefix + "kernel_type" in task
    ]
    kinds = {"iso": 0.45, "aniso": 0.25, "generalized_iso": 0.12, "generalized_aniso": 0.03}
    kinds |= {"plateau_iso": 0.12, "plateau_aniso": 0.03}
    assert_shares([k["kernel_type"] for k in kernels], {"sinc": 0.1} | {kind: 0.9 * p for kind, p in kinds.items()})
    assert_shares([k["kernel_size"] for k in kernels], dict.fromkeys(range(7, 22, 2), 1 / 8))

    sinc = [k for k in kernels if k["kernel_type"] == "sinc"]
    assert_uniform([k["omega_c"] for k in sinc if k["kernel_size"] < 13], math.pi / 3, math.pi)
    assert_uniform([k["omega_c"] for k in sinc if k["kernel_size"] >= 13], math.pi / 5, math.pi)
    lowest = {size: min(k["omega_c"] for k in sinc if k["kernel_size"] == size) for size in range(7, 22, 2)}
    assert [size for size, omega_c in lowest.items() if omega_c < math.pi / 3] == [13, 15, 17, 19, 21]
    others = [k for k in kernels if k["kernel_type"] != "sinc"]
    assert_uniform([k["sigma_x"] for k in others], *sigma)
    aniso = [k for k in others if k["kernel_type"].endswith("aniso")]
    assert_uniform([k["sigma_y"] for k in aniso], *sigma)
    assert_uniform([k["theta"] for k in aniso], -math.pi, math.pi)
    assert abs(np.corrcoef([k["sigma_x"] for k in aniso], [k["sigma_y"] for k in aniso])[0, 1]) < 0.08
    assert all(k["sigma_x"] == k["sigma_y"] and k["theta"] == 0 for k in others if k not in aniso)

    for start, low, high in (("generalized", 0.5, 4), ("plateau", 1, 2)):
        beta = np.array([k["beta"] for k in others if k["kernel_type"].startswith(start)])
        if low < 1:
            assert_uniform(beta[beta < 1], low, 1)
        assert_uniform(beta[beta > 1], 1, high)
        assert_shares(list(beta > 1), {True: 0.5, False: 0.5})
    assert {k["beta"] for k in others if k["kernel_type"] in ("iso", "aniso")} == {1}


@pytest.mark.parametrize(
    ("prefix", "directions", "resize", "noise", "poisson"),
    [
        ("", (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3)),
        ("second_", (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5)),
    ],
)
def test_resize_noise_and_jpeg_are_drawn_as_published(tasks, prefix, directions, resize, noise, poisson):
    scale = np.array([task[prefix + "resize_scale"] for task in tasks])
    assert_shares(list(np.sign(scale - 1)), dict(zip((1, -1, 0), directions, strict=True)))
    assert_uniform(scale[scale > 1], 1, resize[1])
    assert_uniform(scale[scale < 1], resize[0], 1)
    assert_shares([task[prefix + "resize_mode"] for task in tasks], dict.fromkeys(MODES, 1 / 3))
    sigma = [task[prefix + "noise_sigma_255"] for task in tasks if prefix + "noise_sigma_255" in task]
    factor = [task[prefix + "poisson_scale"] for task in tasks if prefix + "poisson_scale" in task]
    assert len(sigma) + len(factor) == len(tasks)
    assert_shares([prefix + "poisson_scale" in task for task in tasks], {True: 0.5, False: 0.5})
    assert_uniform(sigma, *noise)
    assert_uniform(factor, *poisson)
    assert_shares([task[prefix + "gray_noise"] for task in tasks], {True: 0.4, False: 0.6})
    assert_uniform([task[prefix + "jpeg_quality"] for task in tasks], 30, 95)


def test_second_blur_and_end_are_drawn_as_published(tasks):
    assert_shares(["second_kernel_type" in task for task in tasks], {True: 0.8, False: 0.2})
    filtered = [task for task in tasks if "final_sinc_size" in task]
    assert_shares(["final_sinc_size" in task for task in tasks], {True: 0.8, False: 0.2})
    assert_shares([task["final_sinc_size"] for task in filtered], dict.fromkeys(range(7, 22, 2), 1 / 8))
    assert_uniform([task["final_sinc_omega_c"] for task in filtered], math.pi / 3, math.pi)
    assert_shares([task["final_resize_mode"] for task in tasks], dict.fromkeys(MODES, 1 / 3))
    assert_shares([task["final_jpeg_last"] for task in tasks], {True: 0.5, False: 0.5})


def test_neighbouring_tasks_and_rounds_are_independent(tasks):
    quality = [task["jpeg_quality"] for task in tasks]
    assert abs(np.corrcoef(quality, [task["second_jpeg_quality"] for task in tasks])[0, 1]) < 0.04
    assert abs(np.corrcoef(*zip(*pairwise(quality), strict=True))[0, 1]) < 0.04


def test_options_change_what_is_drawn():
    options = {"sinc_prob": 0.0, "kernel_list": ["plateau_aniso"], "kernel_prob": [1.0], "blur_kernel_size": 7}
    options |= {"second_blur_prob": 0.0, "final_sinc_prob": 0.0, "resize_prob": [0.0, 0.0, 1.0], "jpeg_range2": [7, 7]}
    for number in range(20):
        task = draw(number, **options)
        assert (task["kernel_type"], task["kernel_size"], task["resize_scale"]) == ("plateau_aniso", 7, 1)
        assert task["second_jpeg_quality"] == 7
        assert not {"second_kernel_type", "final_sinc_size"} & task.keys()
    with pytest.raises(ValueError, match="did you mean 'sinc_prob'"):
        RealESRGANDegradation(scale=4, sinc_porb=0.5)


# ----------------------------------------------------------------------------------------------------------- the result
def global_states():
    return random.getstate(), str(np.random.get_state()), torch.random.get_rng_state().tolist()  # noqa: NPY002


def test_a_saved_task_gives_the_same_bytes_whatever_happened_before():
    degradation, gt = RealESRGANDegradation(scale=4), photograph(64, 80, 2)
    before = global_states()
    for number in range(6):
        task = degradation.sample(torch_generator(0, "task", number))
        lq = degradation.apply(gt, task, torch_generator(0, "noise", number))
        degradation.apply(photograph(72, 40), draw(number + 1), torch_generator(0, "noise"))
        again = json.loads(json.dumps(task))
        assert again == task
        assert torch.equal(RealESRGANDegradation(scale=4).apply(gt, again, torch_generator(0, "noise", number)), lq)
        assert degradation.sample(torch_generator(0, "task", number)) == task
    assert global_states() == before
    assert not torch.equal(degradation.apply(gt, task, torch_generator(0, "noise", 99)), lq)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 100), (44, 68), (120, 96)])
def test_any_multiple_of_the_scale_gives_its_quarter_on_the_8_bit_grid(height, width):
    degradation = RealESRGANDegradation(scale=4)
    gt = torch.rand(2, 3, height, width)
    copy = gt.clone()
    for number in range(40):
        generator = torch_generator(0, "task", number)
        lq = degradation.apply(gt, degradation.sample(generator), generator)
        assert lq.shape == (2, 3, height // 4, width // 4)
        assert lq.dtype == gt.dtype
        torch.testing.assert_close(lq * 255, (lq * 255).round())
        assert lq.min() >= 0
        assert lq.max() <= 1
    assert torch.equal(gt, copy)
    with pytest.raises(ValueError, match="multiples of the scale 4"):
        degradation.apply(torch.rand(1, 3, 42, 40), draw(0), generator)


def test_images_of_a_task_share_everything_but_the_noise():
    degradation, gt = RealESRGANDegradation(scale=4), photograph(64, 64).expand(2, 3, 64, 64)
    options = {"gaussian_noise_prob": 1.0, "gaussian_noise_prob2": 1.0, "noise_range": [0, 0], "noise_range2": [0, 0]}
    silent = draw(3, **options)
    first, second = degradation.apply(gt, silent, torch_generator(0, "noise"))
    assert torch.equal(first, second)
    first, second = degradation.apply(gt, draw(3), torch_generator(0, "noise"))
    assert not torch.equal(first, second)


@pytest.mark.slow  # timing: wants a machine that does little else
def test_degrading_with_usm_is_five_times_faster_than_basicsr(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import realesrgan_degradation as benchmark

    with torch.no_grad():
        plain, ours = benchmark.cases()["8 tasks with USM"]
        seconds = benchmark.interleaved({"plain": plain, "ours": ours}, 1)
    assert seconds["plain"] > 5 * seconds["ours"]


# ------------------------------------------------------------------------------------------------------- test protocol
def test_the_test_protocol_applies_the_same_draws_to_every_image():
    opt = {"dataroot_gt": "bundled:test", "scale": 4, "protocol": "realesrgan", "kernel_size": 21}
    dataset, again = (BenchmarkDataset({**opt, "name": "T", "max_images": 2, "max_side": 64}) for _ in range(2))
    assert len(dataset) == 16
    assert [dataset[i]["kernel"] for i in (0, 7, 8)] == ["draw1", "draw8", "draw1"]
    assert dataset[0]["task"] == dataset[8]["task"] != dataset[1]["task"]
    item = dataset[9]
    assert torch.equal(item["lq"], again[9]["lq"])
    generator = torch_generator(0, f"noise {item['lq_path'].rpartition('.')[0]}", 1)
    expected = RealESRGANDegradation(scale=4).apply(item["gt"][None], item["task"], generator)
    assert torch.equal(item["lq"], expected[0])
