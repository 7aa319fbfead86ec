from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from mrda_arch import DEN, network_from_file
from mrda_data.degradation.classic import classic_degrade
from mrda_inference.known_degradations import KEYS, Known, degraded, known_degradations, nearest, reference_crops
from mrda_utils.seeding import torch_generator
from mrda_utils.shipped import shipped_weights


@pytest.fixture(scope="module")
def encode():
    torch.manual_seed(0)
    return DEN(num_feat=4).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=[2, 4])
def known(request, encode):
    return request.param, known_degradations(encode, request.param, ["blur"])


def test_known_are_no_blur_and_the_gaussian8_kernels(known):
    scale, kernels = known
    widths = {2: (0.8, 1.6), 4: (1.8, 3.2)}[scale]
    assert [kernel.name for kernel in kernels] == ["no blur", *(f"width {w:.2f}" for w in np.linspace(*widths, 8))]
    distance = np.abs(np.arange(21) - 10)
    for kernel, width in zip(kernels[1:], np.linspace(*widths, 8), strict=True):
        assert kernel.task == {"sigma": pytest.approx(width)}
        one_axis = np.exp(-0.5 * (distance / width) ** 2)
        np.testing.assert_allclose(kernel.kernel, np.outer(one_axis, one_axis) / one_axis.sum() ** 2, atol=1e-6)
    assert np.array_equal(np.argwhere(kernels[0].kernel), [[10, 10]])


def test_of_several_kinds_every_combination_is_known(encode):
    known = known_degradations(encode, 4, list(KEYS))
    expected = [
        {key: value for key, value in zip(KEYS.values(), values, strict=True) if value}
        for values in product((0, 1.8, 2.4, 3.0), (0, 10, 15), (0, 60, 30))
    ]
    assert [one.task for one in known] == [pytest.approx(task) for task in expected]
    both = next(one for one in known if one.task.keys() == {"noise_sigma_255", "jpeg_quality"})
    lq = degraded(reference_crops(4), both.task, 4)
    torch.testing.assert_close(both.idrs, encode(lq))
    gray = lq - lq.mean(1, keepdim=True)  # noise is each channel's own
    assert (gray - (degraded(reference_crops(4), {}, 4) - lq.mean(1, keepdim=True))).std() > 0.01


def test_the_shipped_student_tells_sharp_photographs_from_blurred_ones():
    net = network_from_file(shipped_weights("shipped:mrda_lite_x4_student")).requires_grad_(False)
    kernels, crop = known_degradations(net.den, 4, ["blur"]), reference_crops(4)[:1]
    for width, name in ((0.0, "no blur"), (3.2, "width 3.20")):
        task = {"sigma_x": width, "sigma_y": width, "theta": 0.0, "noise_sigma_255": 0.0}
        lq = classic_degrade(crop, task, 4, 21, torch_generator(0, "any"))
        assert nearest(kernels, net.den(lq))[0].known.name == name


def test_contrast_hardly_turns_the_shipped_students_representation():
    """Or tiles of one photograph disagree on its blur: a student trained without `contrast` turned by 19 degrees."""
    net, crops = network_from_file(shipped_weights("shipped:mrda_lite_x4_student")), reference_crops(4)
    turns = []
    for width in (1.8, 2.4):
        task = {"sigma_x": width, "sigma_y": width, "theta": 0.0, "noise_sigma_255": 0.0}
        lq = classic_degrade(crops, task, 4, 21, torch_generator(0, "any"))
        mean = lq.mean((1, 2, 3), keepdim=True)
        turns.append(torch.rad2deg(torch.cosine_similarity(net.den(lq), net.den((lq + mean) / 2)).clamp(max=1).acos()))
    assert torch.cat(turns).mean() < 15


def test_the_nearest_kernel_has_the_smallest_mean_angle_to_its_idrs():
    def kernel(name, *degrees):
        directions = [[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in degrees]
        return Known({"sigma": name}, torch.tensor(directions) * 3)

    known = [kernel(1, 90, 120), kernel(2, 15, 15), kernel(3, 0.01, 100), kernel(4, 180)]
    neighbours = nearest(known, torch.tensor([[0.5, 0.0]]))
    assert [neighbour.known.task["sigma"] for neighbour in neighbours] == [2, 3, 1]
    assert [neighbour.angle for neighbour in neighbours] == pytest.approx([15, 50.005, 105], rel=1e-3)
