"""The student's network without degradation learning."""

from __future__ import annotations

import pytest
import torch
from basicsr.models import build_model

import mrda_model  # noqa: F401
from mrda_model.adaptation import TaskBatch
from mrda_model.frozen import build_frozen
from mrda_options.command_line import parse
from mrda_utils.checkpoint import CheckpointError
from tests.model.conftest import ROOT, shrunk, train


def options(experiments) -> dict:
    opt = shrunk(ROOT / "options/lite/train_baseline_x4.yml")
    del opt["datasets"]["val"], opt["val"]
    opt["train"].update(total_iter=2)
    opt["logger"] = {"use_tb_logger": False}
    opt["path"] = {"experiments_root": str(experiments)}
    return opt


def test_den_learns_from_the_pixels_alone(tmp_path):
    weights = torch.load(train(options(tmp_path)) / "models/net_g_latest.pth", weights_only=True)
    run = parse(ROOT, ["-opt", str(tmp_path / "options_lite_baseline_x4.yml")], is_train=True)
    run.opt["train"]["amp"] = "none"
    model = build_model(run.opt)
    model.net_g.load_state_dict(weights["params"])
    tasks = [TaskBatch(torch.rand(2, 3, 12, 12), torch.rand(2, 3, 48, 48)) for _ in range(2)]
    losses = model.compute_losses(tasks, 1)
    plain = torch.stack([(model.net_g(lq) - gt).abs().mean() for lq, gt in tasks]).mean()
    assert losses.keys() == {"l_pix"}
    assert losses["l_pix"].item() == pytest.approx(plain.item(), rel=1e-5)
    losses["l_pix"].backward()
    assert all(p.grad.abs().max() > 0 for p in model.net_g.den.parameters())


def test_its_weights_do_not_pass_for_a_student(tmp_path):
    weights = train(options(tmp_path)) / "models/net_g_latest.pth"
    opt = shrunk(ROOT / "options/test_lq.yml")
    with pytest.raises(CheckpointError, match="weights of stage MRDABaselineModel, expected MRDAStudentModel"):
        build_frozen(opt["network_g"], str(weights), "MRDAStudentModel", torch.device("cpu"))
