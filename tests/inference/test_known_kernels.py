from __future__ import annotations

import numpy as np
import pytest
import torch

from mrda_arch import DEN, network_from_file
from mrda_data.degradation.classic import classic_degrade
from mrda_inference.known_kernels import NO_BLUR, KnownKernel, estimate, known_kernels, nearest, reference_crops
from mrda_utils.seeding import torch_generator
from mrda_utils.shipped import shipped_weights


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
    for kernel, width in zip(kernels[1:], np.linspace(*widths, 8), strict=True):
        assert kernel.degradation == {"blur": pytest.approx(width)}
        one_axis = np.exp(-0.5 * (distance / width) ** 2)
        np.testing.assert_allclose(kernel.kernel, np.outer(one_axis, one_axis) / one_axis.sum() ** 2, atol=1e-6)
    assert np.array_equal(np.argwhere(kernels[0].kernel), [[10, 10]])


def test_the_shipped_student_tells_sharp_photographs_from_blurred_ones():
    net = network_from_file(shipped_weights("shipped:mrda_lite_x4_student")).requires_grad_(False)
    kernels, crop = known_kernels(net.den, 4), reference_crops(4)[:1]
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


def test_the_shipped_student_estimates_the_blur_of_photographs():
    """Of the references, each scene left out in turn; 0.14 pixels with the weights of today, no blur exactly."""
    net = network_from_file(shipped_weights("shipped:mrda_lite_x4_student")).requires_grad_(False)
    kernels, errors = known_kernels(net.den, 4), []
    for scene in range(len(kernels[0].idrs)):
        others = [index for index in range(len(kernels[0].idrs)) if index != scene]
        rest = [kernel._replace(idrs=kernel.idrs[others]) for kernel in kernels]
        for kernel in kernels:
            found = estimate(rest, kernel.idrs[scene : scene + 1])["blur"]
            errors.append(abs(found - kernel.degradation["blur"]))
            assert (found < NO_BLUR) is (kernel is kernels[0])
    assert np.mean(errors) < 0.2


def test_an_estimate_is_a_mean_of_all_kinds_by_nearness():
    def known(degrees, **degradation):
        direction = torch.tensor([[np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]])
        return KnownKernel("", degradation, np.ones((1, 1)), direction)

    idr = torch.tensor([[2.0, 0.0]])
    both = [known(10, blur=1.0, noise=4.0), known(-10, blur=3.0, noise=8.0)]
    assert estimate(both, idr) == {"blur": pytest.approx(2), "noise": pytest.approx(6)}
    near = estimate([known(10, blur=1.0), known(20, blur=3.0)], idr)
    assert near["blur"] == pytest.approx((16 * 1 + 3) / 17, rel=1e-4)
    assert estimate([known(0, blur=1.0), known(20, blur=3.0)], idr)["blur"] == pytest.approx(1, abs=1e-6)


def test_the_nearest_kernel_has_the_smallest_mean_angle_to_its_idrs():
    def kernel(name, *degrees):
        directions = [[np.cos(np.radians(angle)), np.sin(np.radians(angle))] for angle in degrees]
        return KnownKernel(name, {}, np.ones((1, 1)), torch.tensor(directions) * 3)

    known = [kernel("far", 90, 120), kernel("near", 15, 15), kernel("one near", 0.01, 100), kernel("x", 180)]
    neighbours = nearest(known, torch.tensor([[0.5, 0.0]]))
    assert [neighbour.known.name for neighbour in neighbours] == ["near", "one near", "far"]
    assert [neighbour.angle for neighbour in neighbours] == pytest.approx([15, 50.005, 105], rel=1e-3)
