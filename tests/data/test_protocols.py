from __future__ import annotations

import math
import typing

import numpy as np
import pytest
import torch
from PIL import Image

from mrda_data import BenchmarkDataset
from mrda_data.degradation.classic import classic_degrade
from mrda_data.degradation.kernels import gaussian_kernel, task_kernel
from mrda_data.protocols import PROTOCOLS, protocol_cases, read_protocols
from mrda_options.datasets import BenchmarkSet
from mrda_utils.errors import OptionError

# (sigma_x, sigma_y, degrees); the first as DASR's and CDFormer's tables print them
NINE = {
    "aniso9_dasr": [
        *[(2, 0.2, 0), (2, 1, 10), (3.5, 1.5, 30), (3.5, 2, 45), (3.5, 2, 90)],
        *[(4, 1.5, 120), (4, 2, 135), (4, 3, 165), (4, 4, 180)],
    ],
    "aniso9_mrda": [
        *[(4, 1, 0), (3.5, 1.5, 20), (3, 2, 40), (2.5, 2.5, 0), (3, 2, 0)],
        *[(3.5, 1.5, 20), (4, 1, 40), (3.5, 2.5, 60), (4, 4, 0)],
    ],
}


@pytest.mark.parametrize("protocol", NINE)
def test_anisotropic_protocols_are_nine_kernels_at_each_of_three_noise_levels(protocol):
    cases = protocol_cases(protocol, 4)
    expected = [(*kernel, noise) for noise in (0, 10, 20) for kernel in NINE[protocol]]
    keys = ("sigma_x", "sigma_y", "theta", "noise_sigma_255")
    found = [[case.task[key] for key in keys] for case in cases]
    np.testing.assert_allclose(found, [(x, y, math.pi * angle / 180, noise) for x, y, angle, noise in expected])
    assert len({case.label for case in cases}) == 27
    assert [case.kernel for case in cases[:9]] == [case.kernel for case in cases[18:]]
    assert cases[10].label == cases[1].label + "_noise10"


def test_other_protocols():
    assert [case.task["sigma_x"] for case in protocol_cases("width", 4)] == [0, 1.2, 2.4, 3.6]
    assert [case.label for case in protocol_cases("bicubic", 2)] == ["bicubic"]
    assert [case.label for case in protocol_cases("gaussian8", 4)] == [f"sigma{1.8 + i / 5:.2f}" for i in range(8)]
    assert all(case.task["noise_sigma_255"] == 0 for name in ("width", "gaussian8") for case in protocol_cases(name, 4))


def test_the_estimated_list_is_labelled_and_only_lists_of_unlike_cases_have_columns():
    assert "estimate" in PROTOCOLS["aniso9_mrda"].note
    assert {name for name, protocol in PROTOCOLS.items() if protocol.note} == set(NINE)
    with_columns = {name for name, protocol in PROTOCOLS.items() if protocol.table == "kernels"}
    assert with_columns == {*NINE, "width", "photo"}


def test_option_files_may_name_every_protocol_and_nothing_else():
    names = typing.get_args(BenchmarkSet.model_fields["protocol"].annotation)
    assert PROTOCOLS.keys() <= set(names)
    assert all(protocol_cases(name, 4) for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p: {source: x, kernels: [-1]}", r"p\.kernels\..*: -1: standard deviations are positive"),
        ("p: {source: x, kernels: [[1, 0, 30]]}", r"\[1, 0, 30\]: standard deviations are positive"),
        ("p: {source: x, kernels: [[1, 2]]}", r"\[1, 2\] is neither a width nor"),
        ("p: {source: x, kernels: [one]}", r"'one' is neither a width nor"),
        ("p: {source: x, kernels: [1, 1.001]}", r"\[1\.0, 1\.0\]: one appears twice"),
        ("p: {source: x, kernels: []}", r"p\.kernels\..*at least 1 item"),
        ("p: {source: x, kernels: {5: [1]}}", r"p\.kernels\.5.*Input should be 2, 3 or 4"),
        ("p: {source: x, kernels: [1], noise_sigma_255: [10, 10]}", r"p\.noise_sigma_255: .*one appears twice"),
        ("p: {source: x, kernels: [1], nose: [1]}", "unknown key 'nose', did you mean 'noise_sigma_255'|'note'"),
        ("p: {kernels: [1]}", r"p\.source: Field required"),
        ("p: [", "no valid YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named(text, message, tmp_path):
    (tmp_path / "p.yml").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_protocols(tmp_path / "p.yml")


def test_a_scale_without_kernels_is_named(tmp_path, monkeypatch):
    (tmp_path / "p.yml").write_text("p: {source: x, kernels: {2: [1.5]}}")
    monkeypatch.setitem(PROTOCOLS, "p", read_protocols(tmp_path / "p.yml")["p"])
    assert protocol_cases("p", 2)[0].label == "sigma1.50"
    with pytest.raises(OptionError, match="protocol: 'p' has no kernels for scale 4"):
        protocol_cases("p", 4)


def test_the_kernel_of_a_task_for_pictures():
    (delta,) = (task_kernel(case.task) for case in protocol_cases("bicubic", 4))
    assert delta[10, 10] == delta.sum() == 1
    second = protocol_cases("aniso9_dasr", 4)[2]
    assert torch.equal(task_kernel(second.task, 15), gaussian_kernel(3.5, 1.5, math.radians(30), 15))


def test_angles_turn_clockwise_on_the_page():
    kernel = task_kernel(protocol_cases("aniso9_mrda", 4)[6].task)  # (4, 1, 40 degrees)
    assert kernel[14, 15] > 10 * kernel[6, 15]  # lower right beats upper right


# ------------------------------------------------------------------------------------------------------------- noise
@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "hr").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(100, 156, (48, 48, 3), dtype=np.uint8)).save(tmp_path / "hr" / name)
    return tmp_path / "hr"


def options(folder, **changes):
    opt = {"name": "x", "dataroot_gt": str(folder), "scale": 4, "protocol": "aniso9_mrda", "kernel_size": 21}
    return {**opt, **changes}


def noise_of(dataset, index):
    """What stands between an LR image and the one without noise, before rounding and clipping but for half a level."""
    item = dataset[index]
    without = {**item["task"], "noise_sigma_255": 0.0}
    return 255 * (item["lq"] - classic_degrade(item["gt"][None], without, 4, 21, torch.Generator())[0])


def test_noise_is_the_same_each_time_and_another_for_each_image_kernel_and_level(folder):
    dataset, again = BenchmarkDataset(options(folder)), BenchmarkDataset(options(folder))
    assert all(torch.equal(dataset[i]["lq"], again[i]["lq"]) for i in reversed(range(len(dataset))))
    found = {i: noise_of(dataset, i).flatten() for i in (10, 14, 19, 27 + 10)}  # 10 and 14: the same kernel, twice
    assert dataset[10]["kernel"] == "2_3.5x1.5_20deg_noise10"
    assert dataset[14]["kernel"] == "6_3.5x1.5_20deg_noise10"
    pairs = torch.corrcoef(torch.stack(list(found.values())))
    assert (pairs - torch.eye(4)).abs().max() < 0.2


@pytest.mark.parametrize(("first", "level"), [(0, 0), (9, 10), (18, 20)])
def test_noise_has_the_level_that_the_protocol_says(folder, first, level):
    dataset = BenchmarkDataset(options(folder))
    noise = torch.cat([noise_of(dataset, i).flatten() for i in range(first, first + 9)])  # nine kernels, 3888 values
    assert float(noise.std()) == pytest.approx(level, rel=0.05, abs=1e-6)
    assert abs(float(noise.mean())) < 1.5


def test_noise_does_not_depend_on_how_the_image_is_stored(folder, tmp_path):
    (tmp_path / "bmp").mkdir()
    for path in folder.iterdir():
        Image.open(path).save(tmp_path / "bmp" / f"{path.stem}.bmp")
    png, bmp = BenchmarkDataset(options(folder)), BenchmarkDataset(options(tmp_path / "bmp"))
    assert all(torch.equal(png[i]["lq"], bmp[i]["lq"]) for i in range(len(png)))
