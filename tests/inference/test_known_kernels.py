from __future__ import annotations

import numpy as np
import pytest
import torch

from mrda_arch import DEN
from mrda_data.degradation.classic import classic_degrade
from mrda_inference.known_kernels import KnownKernel, known_kernels, nearest, reference_crops
from mrda_utils.seeding import torch_generator


@pytest.fixture(scope="module")
def encode():
    torch.manual_seed(0)
    return DEN(num_feat=4).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=[2, 4])
def known(request, encode):
    return request.param, known_kernels(encode, request.param)


def test_known_are_no_blur_and_the_gaussian8_kernels(known):
    scale, kernels = known
    widths = {2: (0.8, 1.6), 4: (1.8, 3.2)}[scale]
    assert [kernel.name for kernel in kernels] == ["no blur", *(f"width {w:.2f}" for w in np.linspace(*widths, 8))]
    distance = np.abs(np.arange(21) - 10)
    for (_, kernel, _), width in zip(kernels[1:], np.linspace(*widths, 8), strict=True):
        one_axis = np.exp(-0.5 * (distance / width) ** 2)
        np.testing.assert_allclose(kernel, np.outer(one_axis, one_axis) / one_axis.sum() ** 2, atol=1e-6)
    assert np.array_equal(np.argwhere(kernels[0].kernel), [[10, 10]])


def test_the_nearest_kernel_of_a_reference_photograph_is_its_own(known, encode):
    scale, kernels = known
    crops = reference_crops(scale)
    for crop, width, name in ((0, 0.0, "no blur"), (3, 1.6, "width 1.60"), (5, 3.2, "width 3.20")):
        if name not in [kernel.name for kernel in kernels]:
            continue
        task = {"sigma_x": width, "sigma_y": width, "theta": 0.0, "noise_sigma_255": 0.0}
        lq = classic_degrade(crops[crop : crop + 1], task, scale, 21, torch_generator(0, "any"))
        neighbours = nearest(kernels, encode(lq))
        assert neighbours[0].known.name == name
        assert neighbours[0].angle == pytest.approx(0, abs=1e-3)
        assert 1e-3 < neighbours[1].angle <= neighbours[2].angle


def test_the_nearest_kernel_has_the_smallest_angle_to_one_of_its_idrs():
    def kernel(name, *degrees):
        directions = [[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in degrees]
        return KnownKernel(name, np.ones((1, 1)), torch.tensor(directions) * 3)

    known = [kernel("far", 90, 120), kernel("near on average", 15, 15), kernel("nearest", 0.01, 100), kernel("x", 180)]
    neighbours = nearest(known, torch.tensor([[0.5, 0.0]]))
    assert [neighbour.known.name for neighbour in neighbours] == ["nearest", "near on average", "far"]
    assert [neighbour.angle for neighbour in neighbours] == pytest.approx([0.01, 15, 90], rel=1e-3)
