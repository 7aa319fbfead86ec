"""A degradation and a metric that live in a user's own file, here this one, and a training with both."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from pydantic import Field

from mrda_data.degradation import KINDS as DEGRADATIONS
from mrda_data.degradation import register as register_degradation
from mrda_data.degradation.base import check_multiple, quantise, uniform
from mrda_data.degradation.ranges import Range
from mrda_metric import Kind
from mrda_metric import register as register_metric
from mrda_metric.metric import KINDS as METRICS
from mrda_utils import checkpoint
from mrda_utils.errors import OptionError
from mrda_utils.fields import Section
from tests.engine.conftest import events
from tests.model.conftest import stage_options, train


class Darken(Section):
    """Every s-th pixel, darkened."""

    type: Literal["darken"] = Field(description="kind of degradation")
    factor: Range = Field(description="range of the factor")


class DarkenDegradation:
    def __init__(self, *, scale, factor):
        self.scale, self.factor = scale, factor

    def sample(self, generator):
        return {"factor": uniform(generator, *self.factor)}

    def apply(self, gt, task, generator):
        check_multiple(gt, self.scale)
        return quantise(task["factor"] * gt[..., :: self.scale, :: self.scale])


def calculate_largest_error(img: np.ndarray, img2: np.ndarray, crop_border: int) -> float:
    """Largest absolute difference of two images, on the 0-255 scale.

    Args:
        img: (H, W, 3) uint8.
        img2: likewise.
        crop_border: left out at each side.
    """
    inner = slice(crop_border, -crop_border or None)
    return float(np.abs(img.astype(int) - img2)[inner, inner].max())


@pytest.fixture
def mine():
    register_degradation(Darken)(DarkenDegradation)
    register_metric(Kind(higher_is_better=False, digits=0))(calculate_largest_error)
    yield
    del DEGRADATIONS["darken"], METRICS["calculate_largest_error"]
    METRIC_REGISTRY._obj_map.pop("calculate_largest_error")


def options(tmp_path, **degradation):
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "bicubic"}
    opt = stage_options("mln_bicubic", tmp_path, degradation={"type": "darken", "factor": [0.5, 0.9], **degradation})
    opt["datasets"]["val"] = {**val, "max_images": 1, "max_side": 48}
    metric = {"type": "calculate_largest_error", "crop_border": 4}
    opt["val"] = {"val_freq": 3, "metrics": {"worst": metric}, "save_best": "worst"}
    return opt


def test_a_training_with_a_degradation_and_a_metric_of_ones_own(mine, tmp_path):
    folder = train(options(tmp_path))
    measured = {e["iter"]: e["worst"] for e in events(folder) if e["event"] == "validation"}
    assert sorted(measured) == [3, 6]
    assert all(0 <= value <= 255 for value in measured.values())
    content = checkpoint.load(folder / "models/net_g_best.pth")["mrda"]
    assert content["iteration"] == min(measured, key=measured.get)
    assert content["degradation"] == "type darken, factor [0.5, 0.9]"


def test_their_options_are_checked_like_all_others(mine, tmp_path):
    with pytest.raises(OptionError, match=r"degradation: unknown key 'facto', did you mean 'factor'\?"):
        train(options(tmp_path, facto=1))
    with pytest.raises(OptionError, match=r"degradation\.factor: .*no range"):
        train(options(tmp_path, factor=[0.9, 0.5]))


def test_without_its_file_a_kind_is_unknown(tmp_path):
    with pytest.raises(OptionError, match=r"degradation\.type: 'darken', known: bicubic, isotropic"):
        train(options(tmp_path))


def test_the_degradation_is_what_the_stage_applies(mine):
    from mrda_data.degradation import build_degradation

    gt = torch.rand(2, 3, 8, 8)
    lq = build_degradation({"type": "darken", "factor": [0.5, 0.5]}, 4).apply(gt, {"factor": 0.5}, None)
    assert torch.equal(lq, ((0.5 * gt[..., ::4, ::4]) * 255).round() / 255)
