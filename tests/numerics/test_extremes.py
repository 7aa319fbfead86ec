"""Images that are hardly photographs, through every part, and numbers that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mrda_arch import MLN, MRDANet
from mrda_data.degradation import build_degradation
from mrda_eval.evaluation import evaluate
from mrda_eval.report import write_json
from mrda_loss.idr_distill_loss import IDRDistillLoss
from mrda_metric import metrics_of
from mrda_model.adaptation import Adaptation, adapted_features
from mrda_model.base_model import StageModel
from mrda_model.restorers import mln_oracle, network_restorer, teacher_oracle
from mrda_pipeline.events import record
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from mrda_utils.seeding import torch_generator
from tests.engine.conftest import run_folder
from tests.model.conftest import STAGES, stage_options, train
from tests.model.test_stages import build
from tests.model.test_test_routes import SET, run, weights  # noqa: F401  (fixtures)

INNER = Adaptation(inner_lrs=(1e-2,) * 5)
DEGRADATIONS = {
    "bicubic": {"type": "bicubic"},
    "isotropic": {"type": "isotropic", "sigma": [0.2, 4.0], "kernel_size": 21},
    "anisotropic": {
        "type": "anisotropic",
        "sigma_x": [0.2, 4.0],
        "sigma_y": [0.2, 4.0],
        "noise_sigma_255": [0.0, 25.0],
        "kernel_size": 21,
    },
    "realesrgan": {"type": "realesrgan"},
}
CONTENTS = ("black", "white", "constant", "red", "noise")


def picture(content: str, height: int, width: int) -> torch.Tensor:
    """(1, 3, height, width) RGB in [0, 1]."""
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    red = noise * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    flat = {"black": 0.0, "white": 1.0, "constant": 0.4}
    return torch.full_like(noise, flat[content]) if content in flat else {"red": red, "noise": noise}[content]


def same_batch(content: str, height: int, width: int) -> torch.Tensor:
    """The same picture twice."""
    return picture(content, height, width).expand(2, -1, -1, -1).contiguous()


@pytest.mark.parametrize("size", [(32, 32), (44, 800), (800, 44)])
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_every_degradation_gives_8_bit_images(kind, content, size):
    degradation = build_degradation(DEGRADATIONS[kind], 4)
    for draw in range(3):
        generator = torch_generator(draw, "extremes")
        lq = degradation.apply(same_batch(content, *size), degradation.sample(generator), generator)
        assert lq.shape == (2, 3, size[0] // 4, size[1] // 4)
        assert lq.min() >= 0
        assert lq.max() <= 1
        assert torch.allclose(lq * 255, (lq * 255).round(), atol=1e-3)


@pytest.mark.parametrize("content", ["black", "white", "constant"])
@pytest.mark.parametrize("kind", ["bicubic", "isotropic"])
def test_blur_and_downsampling_leave_a_flat_image_flat(kind, content):
    degradation = build_degradation(DEGRADATIONS[kind], 4)
    generator = torch_generator(0, "extremes")
    gt = picture(content, 48, 64)
    lq = degradation.apply(gt, degradation.sample(generator), generator)
    assert torch.equal(lq * 255, (gt[..., :12, :16] * 255).round())


@pytest.mark.parametrize("size", [(8, 8), (8, 200), (1, 1)], ids=str)
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("adapt_per", ["task", "image"])
def test_adaptation_teacher_and_student_stay_finite(content, size, adapt_per):
    small = {"num_feat": 4, "num_block": 1, "den_feat": 2}
    mln, teacher, student = MLN(num_feat=4), MRDANet(**small, den_in_ch=4), MRDANet(**small)
    lq, gt = same_batch(content, *size), same_batch(content, 4 * size[0], 4 * size[1])
    features = adapted_features(mln, lq, gt, INNER._replace(adapt_per=adapt_per))
    assert features.isfinite().all()
    for net, sr in ((teacher, teacher(lq, features)), (student, student(lq))):
        grads = torch.autograd.grad((sr - gt).abs().mean(), list(net.parameters()))
        assert sr.shape == gt.shape
        assert sr.isfinite().all()
        assert all(grad.isfinite().all() for grad in grads)
        assert torch.allclose(sr[0], sr[1], atol=1e-6)  # identical images


def test_a_wide_strip_is_restored():
    student = MRDANet(num_feat=4, num_block=1, den_feat=2)
    with torch.no_grad():
        sr = student(picture("noise", 16, 2000))
    assert sr.shape == (1, 3, 64, 8000)
    assert sr.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_distillation_of_extreme_representations_is_finite(value):
    ours = torch.zeros(2, 16)
    ours[:, 0] = value
    ours.requires_grad_()
    terms = IDRDistillLoss(kl_weight=1.0, abs_weight=0.01, temperature=0.15)(ours, -ours.detach())
    sum(terms).backward()
    assert ours.grad.isfinite().all()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("contents", [("black", "white", "constant", "red"), ("black",) * 4, ("noise",) * 4])
def test_a_training_step_on_such_images_is_taken(chain, tmp_path, stage, contents):
    model, batch = build(stage, chain, tmp_path)
    levels = (255 * torch.cat([picture(content, 48, 48) for content in contents])).round().byte()
    model.feed_data({**batch, "gt": levels})
    for iteration in (1, 2):
        model.optimize_parameters(iteration)
    assert model.skipped_steps() == (0, 0)
    assert all(p.isfinite().all() for p in model.net_g.parameters())


# --------------------------------------------------------------------------------------------------------- not finite
def spoil(model, what: str) -> None:
    """Make one thing of a step not finite."""
    if what == "ground truth":
        model.tasks[1].gt[:, 0, 0, 0] = torch.nan
    elif what == "degradation":
        model.tasks[0].lq[0, 1, 2, 3] = torch.inf
    elif what == "weights of the MLN":
        next(model.idr_target.mln.body.parameters()).data.fill_(torch.nan)
    elif what == "adaptation":
        model.idr_target.adaptation = model.idr_target.adaptation._replace(inner_lrs=(1e38, 1e38, 1e38))


CASES = [
    *((stage, what) for stage in STAGES for what in ("ground truth", "degradation")),
    *((stage, what) for stage in ("teacher", "student") for what in ("weights of the MLN", "adaptation")),
]


@pytest.mark.parametrize(("stage", "what"), CASES)
def test_a_step_that_meets_no_number_is_skipped(chain, tmp_path, stage, what):
    model, batch = build(stage, chain, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.net_g.state_dict().items()}
    model.feed_data(batch)
    spoil(model, what)
    model.optimize_parameters(1)
    assert model.skipped_steps() == (1, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.net_g.state_dict().items())


def test_a_degradation_that_always_fails_ends_the_training(chain, tmp_path, monkeypatch):
    original = StageModel.feed_data

    def feed_data(self, data):
        original(self, data)
        self.tasks[0].lq.fill_(torch.nan)

    monkeypatch.setattr(StageModel, "feed_data", feed_data)
    opt = stage_options("student", chain, path__experiments_root=str(tmp_path), train__max_skipped=4)
    with pytest.raises(UserError, match=r"train\.max_skipped: the last 4 steps had no finite loss or gradient"):
        train(opt)
    for path in run_folder(opt).rglob("*.pth"):  # the weights that the training began with
        assert all(tensor.isfinite().all() for tensor in checkpoint.load(path)["params"].values())


class One(torch.utils.data.Dataset):
    """A test set of one item."""

    def __init__(self, lq, gt):
        self.opt, self.item = {"name": "X", "scale": 4}, {"lq": lq, "gt": gt, "lq_path": "a.png", "kernel": "k"}

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.item


PSNR = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}})
FLAT, MANY = torch.full((3, 8, 8), 0.5), Adaptation(inner_lrs=(1e38,) * 3)


def measure(restore, lq=FLAT, gt=None):
    gt = torch.full((3, 32, 32), 0.5) if gt is None else gt
    return next(evaluate({"M": restore}, One(lq, gt), PSNR, torch.device("cpu"))).rows[0].value


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_result_that_is_no_number_is_an_error_and_no_black_picture(bad):
    def restore(lq):
        sr = torch.full((1, 3, 32, 32), 0.5)
        sr[0, 1, 7, 9] = bad
        return sr

    with pytest.raises(UserError, match=r"M on X a\.png k: the output is not finite"):
        measure(network_restorer(restore))
    lq = FLAT.clone()
    lq[2, 3, 4] = bad
    with pytest.raises(UserError, match=r"degradation of X a\.png k: the output is not finite"):
        measure(network_restorer(lambda lq: torch.zeros(1, 3, 32, 32)), lq)


@pytest.mark.parametrize("oracle", ["MLN", "teacher"])
def test_an_adaptation_that_is_no_number_is_an_error(oracle):
    mln, teacher = MLN(num_feat=4), MRDANet(num_feat=4, num_block=1, den_feat=2, den_in_ch=4)
    restore = mln_oracle(mln, MANY) if oracle == "MLN" else teacher_oracle(teacher, mln, MANY)
    with pytest.raises(UserError, match=r"M on X a\.png k: the output is not finite"):
        measure(restore, picture("noise", 8, 8)[0], picture("noise", 32, 32)[0])


# ------------------------------------------------------------------------------------------------------ equal images
def strict(text: str):
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_psnr_of_equal_images_is_infinite_and_the_report_stays_json(tmp_path):
    assert measure(network_restorer(lambda lq: torch.full((1, 3, 32, 32), 0.5))) == float("inf")
    write_json({("X", "M", "psnr"): float("inf"), ("X", "M", "ssim"): 0.5}, {}, "x", "0", {}, tmp_path / "metrics.json")
    content = strict((tmp_path / "metrics.json").read_text())
    assert [entry["value"] for entry in content["means"]] == ["inf", 0.5]
    record(tmp_path, "validation", 1, psnr=float("inf"), ssim=0.5)
    event = strict((tmp_path / "events.jsonl").read_text())
    assert (event["psnr"], event["ssim"]) == ("inf", 0.5)


@pytest.mark.parametrize("size", [(32, 32), (44, 1600)])
def test_a_test_of_flat_and_narrow_images_has_a_report(run, tmp_path, size):  # noqa: F811
    (tmp_path / "hr").mkdir()
    for content in CONTENTS:
        pixels = (picture(content, *size)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "hr" / f"{content}.png")
    report, rows, content = run("x", {"test": {**SET, "dataroot_gt": str(tmp_path / "hr"), "protocol": "bicubic"}})
    values = {(row[1], row[3], row[4]): float(row[5]) for row in rows[1:]}
    assert values["black.png", "Bicubic", "psnr"] == float("inf")
    assert not any(np.isnan(value) for value in values.values())
    assert "inf" in report
    strict(json.dumps(content))
