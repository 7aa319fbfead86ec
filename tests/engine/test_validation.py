"""A validation, or a test, that cannot be measured costs a value, never a training or a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from mrda_data import BenchmarkDataset, LQDataset
from mrda_data.images import ImageError
from mrda_eval import pictures
from mrda_eval.evaluation import Restored, Row
from mrda_metric import MetricError, metrics_of
from mrda_model import training_state
from mrda_pipeline import validation
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from tests.engine.conftest import events
from tests.model.conftest import stage_options, train

VAL = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "bicubic", "max_images": 1}
NIQE = {"type": "calculate_niqe", "crop_border": 4}
PSNR = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}
SSIM = {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True}


def options(tmp_path, metrics, *, max_side=48, **val):
    val_set = {**VAL, "max_side": max_side}
    changes = {"datasets__val": val_set, "val": {"val_freq": 3, "metrics": metrics, **val}}
    return stage_options("mln_bicubic", tmp_path, **changes)


# ------------------------------------------------------------------------------------------------------------- training
@pytest.mark.parametrize(("name", "metric", "side"), [("niqe", NIQE, 128), ("ssim", SSIM, 16)])
def test_a_metric_without_a_value_at_this_size_is_refused_before_anything_is_written(tmp_path, name, metric, side):
    opt = options(tmp_path, {name: metric}, max_side=side)
    opt["datasets"]["val"]["kernel_size"] = 21
    with pytest.raises(MetricError, match=rf"val\.metrics\.{name}: it has no value on images of {side}x{side}, as in"):
        train(opt)
    assert not (tmp_path / opt["name"]).exists()


def test_what_is_due_is_saved_before_a_validation_that_fails(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise UserError("V: cannot be measured")

    monkeypatch.setattr(validation, "evaluate", fail)
    opt = options(tmp_path, {"psnr": PSNR})
    with pytest.raises(UserError, match="V: cannot be measured"):
        train(opt)
    state = training_state.load_state(tmp_path / opt["name"] / "training_states/3.state")
    assert (state["iter"], state["validated_iter"]) == (3, 0)
    monkeypatch.undo()
    folder = train(opt, "--auto_resume")  # validates first
    assert [(e["event"], e["iter"]) for e in events(folder) if e["event"] == "validation"] == [
        ("validation", 3),
        ("validation", 6),
    ]
    assert training_state.load_state(folder / "training_states/6.state")["validated_iter"] == 6


def restored_with(value):
    return Restored(1, {}, None, None, {}, [Row("V", "a", "k", "m", "niqe", value)], {}, [])


@pytest.mark.parametrize(("metric", "best"), [(NIQE, 2), (PSNR, 3)])
def test_save_best_keeps_the_better_weights_whichever_way_a_metric_counts(tmp_path, monkeypatch, metric, best):
    values = iter([5.0, 4.0, 6.0])
    monkeypatch.setattr(validation, "evaluate", lambda *args: [restored_with(next(values))])
    opt = options(tmp_path, {"niqe": metric}, max_side=224, save_best="niqe", val_freq=1)
    opt["train"]["total_iter"] = 3
    folder = train(opt)
    assert checkpoint.load(folder / "models/net_g_best.pth")["mrda"]["iteration"] == best


@pytest.mark.parametrize(("metric", "direction"), [(NIQE, "higher"), (PSNR, "lower")])
def test_a_direction_that_a_metric_does_not_have_is_refused(tmp_path, metric, direction):
    with pytest.raises(UserError, match=rf"val\.metrics\.m\.better: '{direction}', but .* is better; leave it out"):
        train(options(tmp_path, {"m": {**metric, "better": direction}}, max_side=224))
    assert metrics_of({"m": {**PSNR, "better": "higher"}})[0].is_better(2, 1)


def test_a_value_that_is_missing_in_a_validation_is_left_out_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "evaluate", lambda *args: [restored_with(1.0)._replace(rows=[], failures=["no m"])])
    folder = train(options(tmp_path, {"niqe": NIQE}, max_side=224))
    found = [event for event in events(folder) if event["event"] == "validation"]
    assert [event["iter"] for event in found] == [3, 6]
    assert not any("niqe" in event for event in found)
    log = next(folder.glob("*.log")).read_text()
    assert "Validation V: 1 values are missing and left out of the means, for example no m" in log


@pytest.mark.parametrize(("protocol", "side"), [("gaussian8", 11), ("bicubic", 3)])
def test_a_max_side_below_kernel_or_scale_is_one_line(tmp_path, protocol, side):
    opt = options(tmp_path, {"psnr": PSNR}, max_side=side)
    opt["datasets"]["val"]["protocol"] = protocol
    with pytest.raises(ImageError, match=rf"V: max_side {side} is too small for scale 4 .* at least 12 pixels"):
        train(opt)
    assert not (tmp_path / opt["name"]).exists()


def test_states_that_were_abandoned_are_pruned_with_their_weights(tmp_path):
    opt = options(tmp_path, {"psnr": PSNR})
    opt["logger"].update(save_checkpoint_freq=2, keep_last=3)
    folder = train(opt)
    first = str(folder / "training_states/2.state")
    opt["train"]["total_iter"] = 9
    opt["logger"].update(save_checkpoint_freq=3, keep_last=2)
    for name in ("4.state", "6.state"):
        (folder / "training_states" / name).write_bytes(b"damaged")
    train(opt, "--auto_resume")
    assert Path(first).name not in (states := sorted(p.name for p in (folder / "training_states").iterdir()))
    assert states == ["6.state", "9.state"]
    weights = ["net_g_6.pth", "net_g_9.pth", "net_g_latest.pth"]
    assert sorted(p.name for p in (folder / "models").iterdir()) == weights


# ----------------------------------------------------------------------------------------------------------------- test
@pytest.fixture
def run(tmp_path):
    """Function that upsamples the images of hr/ bicubically; returns the exit code, report and metrics.json."""

    def run(metrics, **dataset):
        test_set = {"name": "X", "type": "BenchmarkDataset", "dataroot_gt": "hr", "protocol": "bicubic", **dataset}
        opt = {"name": "t", "model_type": "MRDATestModel", "scale": 4, "device": "cpu", "datasets": {"test": test_set}}
        opt["val"] = {"metrics": metrics}
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
        code = run_test(tmp_path, ["-opt", str(tmp_path / "o.yml")])
        results = tmp_path / "results/t"
        return code, (results / "report.md").read_text(), json.loads((results / "metrics.json").read_text())

    return run


def picture(path, height, width):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def means(content):
    return {mean["metric"]: mean["value"] for mean in content["means"]}


def test_an_image_that_a_metric_cannot_take_is_left_out_of_its_means_and_counted(run, tmp_path, capsys):
    picture(tmp_path / "hr/large.png", 48, 40)
    code, _, alone = run({"psnr": PSNR, "ssim": SSIM})
    assert code == 0
    picture(tmp_path / "hr/small.png", 16, 16)
    code, report, both = run({"psnr": PSNR, "ssim": SSIM})
    assert code == 1
    assert means(both)["ssim"] == means(alone)["ssim"]
    assert means(both)["psnr"] != means(alone)["psnr"]
    assert "1 images or values are missing, and left out of the means: X small.png bicubic: no ssim" in report


@pytest.mark.parametrize("kind", ["damaged", "smaller than the kernel"])
def test_an_image_that_cannot_be_used_costs_its_own_values_alone(run, tmp_path, capsys, kind):
    picture(tmp_path / "hr/b.png", 48, 40)
    _, _, alone = run({"psnr": PSNR})
    if kind == "damaged":
        (tmp_path / "hr/a.png").write_bytes((tmp_path / "hr/b.png").read_bytes()[:900])
    else:
        picture(tmp_path / "hr/a.png", 8, 40)
    code, report, both = run({"psnr": PSNR})
    assert code == 1
    assert means(both) == means(alone)
    assert "1 images or values are missing" in report
    assert "a.png" in capsys.readouterr().out


def test_own_lr_images_that_are_damaged_are_no_items(tmp_path):
    picture(tmp_path / "hr/b.png", 48, 40)
    (tmp_path / "hr/a.png").write_bytes(b"x" * 100)
    dataset = LQDataset({"name": "x", "dataroot_lq": str(tmp_path / "hr"), "scale": 4})
    assert (len(dataset), dataset[0]["lq_path"], dataset.sizes) == (1, "b.png", {(192, 160)})
    assert len(dataset.left_out) == 1


@pytest.mark.parametrize("name", ["psnr", "psnr_y", "y"])
def test_panels_show_psnr_whatever_its_name_is(tmp_path, monkeypatch, name):
    titles = []
    monkeypatch.setattr(
        pictures, "side_by_side", lambda shown, kernel: titles.extend(shown) or Image.new("RGB", (9, 9))
    )
    dataset = BenchmarkDataset({**VAL, "max_side": 48, "scale": 4, "kernel_size": 21})
    image = np.zeros((48, 48, 3), np.uint8)
    rows = [Row("V", "a", "bicubic", "Bicubic", name, 31.234)]
    restored = Restored(0, dataset[0], image[::4, ::4], image, {"Bicubic": image}, rows, {}, [])
    pictures.write_example(restored, dataset.opt, metrics_of({name: PSNR}), tmp_path, {})
    assert "Bicubic 31.23 dB" in titles
