from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from mrda_data.degradation import AnisotropicDegradation, BicubicDegradation, IsotropicDegradation, build_degradation
from mrda_data.degradation.kernels import blur, gaussian_kernel
from mrda_utils.resize import imresize
from mrda_utils.seeding import torch_generator

ANISO = {"sigma_x": [0.2, 4.0], "sigma_y": [0.2, 4.0], "noise_sigma_255": [0.0, 25.0]}


@pytest.mark.parametrize(("sx", "sy", "degrees"), [(2.0, 2.0, 0), (4.0, 1.5, 120), (3.5, 2.0, 45), (0.2, 0.2, 0)])
def test_kernel_equals_the_normal_density_of_scipy(sx, sy, degrees):
    theta = math.radians(degrees)
    rotation = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    density = scipy.stats.multivariate_normal([0, 0], rotation @ np.diag([sx**2, sy**2]) @ rotation.T)
    y, x = np.mgrid[-10:11, -10:11]
    expected = density.pdf(np.dstack([x, y]))
    kernel = gaussian_kernel(sx, sy, theta)
    assert kernel.min() >= 0
    assert kernel.sum().item() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=0, atol=1e-12)


def test_blur_equals_scipy_with_mirrored_borders():
    image = np.random.default_rng(0).random((2, 3, 30, 25))
    kernel = gaussian_kernel(3.0, 1.0, 0.7)
    expected = [[scipy.ndimage.correlate(c, kernel.numpy(), mode="mirror") for c in sample] for sample in image]
    ours = blur(torch.from_numpy(image), kernel)
    np.testing.assert_allclose(ours, np.array(expected), rtol=0, atol=1e-12)


def test_classic_degradation_is_eq_1():
    gt = torch.rand(2, 3, 48, 64)
    degradation = AnisotropicDegradation(scale=4, **ANISO)
    task = {"sigma_x": 3.0, "sigma_y": 1.0, "theta": 0.5, "noise_sigma_255": 10.0}
    lq = degradation.apply(gt, task, torch_generator(0, "t"))
    noise = torch.randn(2, 3, 12, 16, generator=torch_generator(0, "t")) * 10 / 255
    expected = imresize(blur(gt, gaussian_kernel(3.0, 1.0, 0.5)), 1 / 4) + noise
    torch.testing.assert_close(lq * 255, (expected.clamp(0, 1) * 255).round())
    assert not torch.equal(noise[0], noise[1])  # noise differs from image to image


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kind", ["bicubic", "isotropic", "anisotropic"])
def test_lq_size_and_grid(scale, kind):
    opt = {"bicubic": {}, "isotropic": {"sigma": [0.2, 4.0]}, "anisotropic": ANISO}[kind]
    degradation = build_degradation({"type": kind, **opt}, scale)
    generator = torch_generator(0, "t")
    lq = degradation.apply(torch.rand(1, 3, 12 * scale, 7 * scale), degradation.sample(generator), generator)
    assert lq.shape == (1, 3, 12, 7)
    torch.testing.assert_close(lq * 255, (lq * 255).round())
    assert lq.min() >= 0
    assert lq.max() <= 1


@pytest.mark.parametrize(
    "degradation", [IsotropicDegradation(scale=4, sigma=[0.2, 4.0]), AnisotropicDegradation(scale=4, **ANISO)]
)
def test_equal_generators_give_equal_tasks_and_bytes(degradation):
    gt = torch.rand(2, 3, 48, 48)
    runs = []
    for _ in range(2):
        generator = torch_generator(3, "task", 7)
        task = degradation.sample(generator)
        runs.append((task, degradation.apply(gt, task, generator)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert degradation.sample(torch_generator(3, "task", 8)) != runs[0][0]


def test_draws_are_uniform_over_their_ranges():
    degradation = AnisotropicDegradation(scale=4, **ANISO)
    tasks = [degradation.sample(torch_generator(0, "task", i)) for i in range(10_000)]
    for key, low, high in (("sigma_x", 0.2, 4), ("sigma_y", 0.2, 4), ("theta", 0, math.pi), ("noise_sigma_255", 0, 25)):
        values = [task[key] for task in tasks]
        assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3
    assert abs(scipy.stats.pearsonr([t["sigma_x"] for t in tasks], [t["sigma_y"] for t in tasks]).statistic) < 0.1


def test_isotropic_tasks_are_isotropic_and_noise_free():
    task = IsotropicDegradation(scale=4, sigma=[0.2, 4.0]).sample(torch_generator(0, "t"))
    assert task["sigma_x"] == task["sigma_y"]
    assert task["noise_sigma_255"] == 0


@pytest.mark.parametrize("scale", [2, 4])
def test_too_small_or_odd_sizes_are_named(scale):
    degradation = IsotropicDegradation(scale=scale, sigma=[1.0, 1.0])
    task = degradation.sample(torch_generator(0, "t"))
    with pytest.raises(ValueError, match="8x40 is too small for a 21x21 kernel: at least 11 pixels"):
        degradation.apply(torch.rand(1, 3, 8, 40), task, torch_generator(0, "t"))
    with pytest.raises(ValueError, match=f"multiples of the scale {scale}"):
        degradation.apply(torch.rand(1, 3, 41, 40), task, torch_generator(0, "t"))
    with pytest.raises(ValueError, match=f"multiples of the scale {scale}"):
        BicubicDegradation(scale=scale).apply(torch.rand(1, 3, 40, 41), {}, torch_generator(0, "t"))
    assert degradation.apply(torch.rand(1, 3, 12, 12), task, torch_generator(0, "t")).shape[-1] == 12 // scale


@pytest.mark.parametrize(("arguments", "message"), [((1, 1, 0, 20), "kernel_size: 20"), ((0, 1, 0, 21), "positive")])
def test_wrong_kernels_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_kernel(*arguments)
