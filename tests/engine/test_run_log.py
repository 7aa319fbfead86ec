"""What a training tells while it runs."""

from __future__ import annotations

import io
import sys
from statistics import fmean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrda_eval import progress
from mrda_model.adaptation import adapt, adaptation_errors, super_resolve
from mrda_utils.resize import imresize
from tests.engine.conftest import events
from tests.model.conftest import stage_options, train
from tests.model.test_stages import build

ALWAYS = {"lr_g", "grad_norm", "iter_per_s", "data_share", "memory_mib", "skipped_steps"}
OF_STAGE = {
    "mln_bicubic": {"l_pix", "l_pix_mean"},
    "mln_meta": {"l_meta", "l_meta_mean", "adaptation_l1_before", "adaptation_l1_after"},
    "teacher": {"l_pix", "l_pix_mean", "adaptation_l1_before", "adaptation_l1_after"},
    "student": {"l_pix", "l_pix_mean", "l_kl", "l_kl_mean", "l_abs", "l_abs_mean", "idr_distance"},
}
VAL = {"name": "Held", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
PSNR = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}


@pytest.mark.parametrize("stage", OF_STAGE)
def test_a_line_of_the_log_has_its_values_in_events_and_curves(chain, tmp_path, stage):
    changes = {"path__experiments_root": str(tmp_path), "logger__use_tb_logger": True}
    folder = train(stage_options(stage, chain, **changes))
    lines = [event for event in events(folder) if event["event"] == "log"]
    assert [line["iter"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line.keys() - {"time", "event", "iter"} == ALWAYS | OF_STAGE[stage]
        assert line["lr_g"] == pytest.approx({2: 1, 4: 1, 6: 0.5}[line["iter"]] * lines[0]["lr_g"])
        assert line["grad_norm"] > 0
        assert line["memory_mib"] > 100
        assert 0 <= line["data_share"] <= 1
        assert line["skipped_steps"] == 0
    curves = EventAccumulator(str(folder / "tb_logger")).Reload()
    for name in ALWAYS | OF_STAGE[stage]:
        tag = f"losses/{name}" if name.startswith("l_") else f"training/{name}"
        assert [point.value for point in curves.Scalars(tag)] == pytest.approx([line[name] for line in lines])
    log = next(folder.glob("*.log")).read_text()
    assert "5 images in bundled:train, 4 samples" in log or "5 images in bundled:train, 8 samples" in log
    assert f"grad_norm: {lines[-1]['grad_norm']:.4e}" in log


def test_a_mean_is_that_of_the_iterations_since_the_line_before(chain, tmp_path):
    found = {}
    for print_freq in (1, 3):
        changes = {"path__experiments_root": str(tmp_path / str(print_freq)), "logger__print_freq": print_freq}
        folder = train(stage_options("student", chain, **changes))
        found[print_freq] = [event for event in events(folder) if event["event"] == "log"]
    for line, start in zip(found[3], (0, 3), strict=True):
        for name in ("l_pix", "l_kl"):
            assert line[f"{name}_mean"] == pytest.approx(fmean(one[name] for one in found[1][start : start + 3]))


def test_a_step_that_was_skipped_is_counted_and_left_out_of_the_mean(chain, tmp_path, monkeypatch):
    from mrda_model.base_model import StageModel

    original = StageModel.compute_losses

    def compute_losses(self, tasks, current_iter):
        losses = original(self, tasks, current_iter)
        return {name: loss * torch.nan for name, loss in losses.items()} if current_iter == 2 else losses

    monkeypatch.setattr(StageModel, "compute_losses", compute_losses)
    folder = train(stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), logger__print_freq=3))
    first, second = (event for event in events(folder) if event["event"] == "log")
    assert first["skipped_steps"] == second["skipped_steps"] == 1
    assert 0 < first["l_pix_mean"] < 1


@pytest.mark.parametrize("stage", OF_STAGE)
def test_the_gradients_norm_is_that_of_all_of_it_before_clipping(chain, tmp_path, stage):
    def after_a_step(**options):
        model, batch = build(stage, chain, tmp_path, **options)
        model.feed_data(batch)
        model.optimize_parameters(1)
        gradient = torch.cat([p.grad.flatten() for p in model.trained])
        return float(gradient.norm()), float(model.watch()["grad_norm"])

    gradient, norm = after_a_step()
    assert gradient == pytest.approx(norm, rel=1e-4)
    clipped, norm_before = after_a_step(train__clip_grad_norm=1e-4)
    assert clipped == pytest.approx(1e-4, rel=1e-2)
    assert norm_before > 1e-2


@pytest.mark.parametrize("adapt_per", ["task", "image"])
def test_adaptations_errors_are_those_of_its_first_and_last_weights(chain, tmp_path, adapt_per):
    model, batch = build("teacher", chain, tmp_path, adaptation__adapt_per=adapt_per)
    model.feed_data(batch)
    mln, adaptation, (lq, gt) = model.idr_target.mln, model.idr_target.adaptation, model.tasks[0]
    before, after = adaptation_errors(mln, lq, gt, adaptation)
    assert before == pytest.approx(float(F.l1_loss(mln(lq), gt)), abs=1e-6)
    plain = adaptation._replace(collapse=False)
    sr = super_resolve(mln, adapt(mln, lq, gt, plain), lq, imresize(lq, 4), plain)
    assert after == pytest.approx(float(F.l1_loss(sr, gt).detach()), abs=1e-6)
    assert not after.requires_grad


def test_the_distance_of_representations_is_relative_to_the_teachers(chain, tmp_path):
    model, batch = build("student", chain, tmp_path)
    model.feed_data(batch)
    lq = torch.cat([task.lq for task in model.tasks])
    with torch.no_grad():
        own, target = model.net_g.den(lq), model.den_t(model.idr_target(model.tasks))
    expected = fmean(float((a - b).norm() / b.norm()) for a, b in zip(own, target, strict=True))
    model.optimize_parameters(1)
    assert float(model.watch()["idr_distance"]) == pytest.approx(expected, rel=1e-4)


def test_a_validation_shows_lr_sr_and_gt_of_three_images(chain, tmp_path):
    val_opt = {"val_freq": 3, "metrics": {"psnr": PSNR}}
    changes = {"datasets__val": {**VAL, "max_side": 48}, "val": val_opt, "logger__use_tb_logger": True}
    folder = train(stage_options("teacher", chain, path__experiments_root=str(tmp_path), **changes))
    files = sorted((folder / "panels/Held").glob("*.png"))
    assert len(files) == 3  # the newest validation's
    curves = EventAccumulator(str(folder / "tb_logger"), size_guidance={"images": 0}).Reload()
    for file in files:
        shown = curves.Images(f"Held/{file.stem}")
        assert [picture.step for picture in shown] == [3, 6]
        last = np.asarray(Image.open(io.BytesIO(shown[-1].encoded_image_string)))
        assert np.array_equal(last, np.asarray(Image.open(file)))
        assert last.shape[1] == 3 * 256 + 2 * 4  # LR, SR and GT side by side
    found = {event["iter"]: event["psnr"] for event in events(folder) if event["event"] == "validation"}
    assert [p.value for p in curves.Scalars("metrics/Held/psnr")] == pytest.approx([found[3], found[6]])


def test_output_that_goes_to_a_file_has_a_line_now_and_then(monkeypatch, capsys):
    assert not sys.stderr.isatty()
    list(progress.progress_bar("quick", True, range(100)))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "INTERVAL", 0)
    list(progress.progress_bar("slow", True, range(3), leave=False))
    list(progress.progress_bar("another process", False, range(3)))
    err = capsys.readouterr().err
    assert "\r" not in err
    assert [line.partition(" of ")[0] for line in err.splitlines()] == ["slow: 0", "slow: 1", "slow: 2", "slow: 3"]
