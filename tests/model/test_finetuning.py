"""Weights of one degradation go on to another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_data.sources import BundledSource
from mrda_inference.command_line import upscale_files
from mrda_options import validate
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_utils import checkpoint
from mrda_utils.errors import OptionError
from mrda_utils.yaml_text import parse_yaml
from tests.model.conftest import ROOT, stage_options, train

OTHER = {"type": "isotropic", "sigma": [0.5, 1.0]}


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_a_stage_starts_from_its_weights_under_another_degradation_if_it_is_asked_to(chain, tmp_path, stage):
    opt = stage_options(stage, chain, name="other", degradation=OTHER, train__total_iter=1, train__ema_decay=0)
    start = chain / f"demo_{stage}_x4/models/net_g_latest.pth"
    opt["path"] |= {"experiments_root": str(tmp_path), "pretrain_network_g": str(start)}
    with pytest.raises(checkpoint.CheckpointError, match="trained on degradation"):
        train(opt)
    opt["path"]["finetune_network_g"] = opt["path"].pop("pretrain_network_g")
    opt["train"]["optim_g"]["lr"] = 1e-12
    run = train(opt)
    before, after = (checkpoint.load(path) for path in (start, run / "models/net_g_latest.pth"))
    for name, weights in before["params_ema"].items():
        torch.testing.assert_close(after["params"][name], weights, atol=1e-9, rtol=0)
    assert after["mrda"]["degradation"].startswith("type isotropic, sigma [0.5, 1.0]")


def test_two_starts_are_refused(chain):
    opt = stage_options("teacher", chain)
    opt["path"] |= {"finetune_network_g": "a", "pretrain_network_g": "b"}
    with pytest.raises(OptionError, match="finetune_network_g, pretrain_network_g: leave one of them out"):
        validate(opt, True, "o.yml")


def test_the_option_files_of_fine_tuning_run_from_the_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage in ("teacher", "student"):
        opt = parse_yaml((ROOT / f"options/finetune/{stage}_x4.yml").read_text(), "o.yml")
        opt |= {"device": "cpu", "num_processes": 1}
        small = {"gt_size": 48, "tasks_per_gpu": 1, "images_per_task": 1}
        opt["datasets"]["train"].update(dataroot_gt="bundled:train", **small)
        opt["datasets"]["val"].update(max_images=1, max_side=48)
        opt["train"]["total_iter"] = 1
        opt["logger"] = {"use_tb_logger": False}
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
        train_pipeline(tmp_path, ["-opt", str(tmp_path / "o.yml")])
    Image.fromarray(BundledSource("test").read(0)[:20, :30]).save("a.png")
    weights = "experiments/finetune_student_x4/models/net_g_latest.pth"
    assert upscale_files(["-i", "a.png", "-o", "out", "--weights", weights, "--device", "cpu"]) == 0
    assert np.asarray(Image.open("out/a.png")).shape == (80, 120, 3)
