from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.utils.matlab_functions import imresize as basicsr_imresize

from mrda_utils.resize import cubic, imresize


def keys(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def reference(image: np.ndarray, scale: float, antialias: bool) -> np.ndarray:
    """MATLAB's imresize as plain float64 loops: 1-based positions, mirrored borders, normalised weights."""
    for axis in (0, 1):
        image = np.moveaxis(image, axis, 0)
        length = image.shape[0]
        shrink = scale if antialias and scale < 1 else 1.0
        out = np.zeros((math.ceil(length * scale), *image.shape[1:]))
        for i in range(len(out)):
            u = (i + 1) / scale + 0.5 * (1 - 1 / scale)
            total = 0.0
            for p in range(math.floor(u - 2 / shrink) - 1, math.ceil(u + 2 / shrink) + 2):
                weight = shrink * keys(shrink * (u - p))
                source = (p - 1) % (2 * length)
                source = source if source < length else 2 * length - 1 - source
                out[i] += weight * image[source]
                total += weight
            out[i] /= total
        image = np.moveaxis(out, 0, axis)
    return image


@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 1 / 2, 0.7, 2, 3, 4, 1.5])
@pytest.mark.parametrize("size", [(24, 36), (13, 17), (3, 2)])
@pytest.mark.parametrize("antialias", [True, False])
def test_equals_a_float64_reference(scale, size, antialias):
    image = np.random.default_rng(0).random(size)
    ours = imresize(torch.from_numpy(image), scale, antialias).numpy()
    np.testing.assert_allclose(ours, reference(image, scale, antialias), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 1 / 2, 2, 3, 4])
def test_float32_batch_equals_the_reference(scale):
    images = np.random.default_rng(0).random((2, 3, 48, 60))
    ours = imresize(torch.from_numpy(images).float(), scale).numpy()
    for n in range(2):
        for c in range(3):
            np.testing.assert_allclose(ours[n, c], reference(images[n, c], scale, True), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1 / 4, 4])
def test_agrees_with_basicsr(scale):
    image = torch.rand(3, 40, 64)
    torch.testing.assert_close(imresize(image, scale), basicsr_imresize(image, scale), rtol=0, atol=1e-5)


def test_agrees_with_torch_away_from_the_border():
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64)
    torchs = F.interpolate(image, scale_factor=0.25, mode="bicubic", antialias=True)
    torch.testing.assert_close(imresize(image, 0.25)[..., 4:-4, 4:-4], torchs[..., 4:-4, 4:-4])


def test_constant_images_stay_constant():
    torch.testing.assert_close(imresize(torch.full((1, 1, 9, 9), 0.3), 1 / 4), torch.full((1, 1, 3, 3), 0.3))


def test_kernel_is_one_at_zero_and_zero_at_the_other_integers():
    assert cubic(torch.tensor([-2.0, -1, 0, 1, 2, 3])).tolist() == [0, 0, 1, 0, 0, 0]


def test_gradient():
    image = torch.rand(1, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), image)
    assert torch.autograd.gradcheck(lambda x: imresize(x, 2), image)
