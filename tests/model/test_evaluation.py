from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from skimage.metrics import structural_similarity

from mrda_data import BenchmarkDataset
from mrda_eval.evaluation import Row, evaluate, means
from mrda_eval.tables import MethodCost
from mrda_metric import metrics_of
from mrda_model.restorers import bicubic_restorer, network_restorer
from mrda_pipeline.benchmark_pipeline import _costs
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils.errors import UserError
from mrda_utils.yaml_text import parse_yaml
from tests.metric.test_lpips import alexnet
from tests.model.conftest import ROOT, stage_options, train

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
    "ssim": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
}


@pytest.fixture(scope="module")
def dataset():
    opt = {"name": "photos", "dataroot_gt": "bundled:test", "scale": 4, "protocol": "gaussian8", "kernel_size": 21}
    return BenchmarkDataset({**opt, "max_images": 1, "max_side": 96})


def luma(bgr):
    """BT.601, 16-235, of 8-bit values; not rounded."""
    b, g, r = np.moveaxis(bgr.astype(np.float64), 2, 0) / 255
    return 65.481 * r + 128.553 * g + 24.966 * b + 16


def test_psnr_and_ssim_equal_an_independent_reference(dataset):
    first = next(evaluate({"Bicubic": bicubic_restorer(4)}, dataset, metrics_of(METRICS), torch.device("cpu")))
    sr, gt = (luma(image)[4:-4, 4:-4] for image in (first.sr["Bicubic"], first.gt))
    values = {row.metric: row.value for row in first.rows}
    assert values["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((sr - gt) ** 2)), abs=1e-4)
    ssim = structural_similarity(
        sr, gt, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1][5:-5, 5:-5].mean()
    assert values["ssim"] == pytest.approx(ssim, abs=1e-6)


def test_every_item_method_and_metric_has_a_row(dataset):
    restorers = {"Bicubic": bicubic_restorer(4), "Bicubic again": bicubic_restorer(4)}
    rows = [row for item in evaluate(restorers, dataset, metrics_of(METRICS), torch.device("cpu")) for row in item.rows]
    assert len(rows) == len(set(rows)) == 8 * 2 * 2
    measured = means(rows)
    assert measured["photos", "Bicubic", "psnr"] == measured["photos", "Bicubic again", "psnr"]
    by_hand = [row.value for row in rows if row.method == "Bicubic" and row.metric == "psnr"]
    assert measured["photos", "Bicubic", "psnr"] == pytest.approx(np.mean(by_hand))


def test_means_average_images_not_squared_errors():
    rows = [Row("d", "a", "k", "m", "psnr", 20.0), Row("d", "b", "k", "m", "psnr", 40.0)]
    assert means(rows) == {("d", "m", "psnr"): 30.0}


@pytest.mark.parametrize(("metric", "side"), [("ssim", 16), ("niqe", 24), ("niqe", 64), ("niqe", 104)])
def test_an_image_too_small_for_a_metric_is_named_and_has_no_row_of_it(metric, side):
    opt = {"name": "photos", "dataroot_gt": "bundled:test", "scale": 4, "protocol": "bicubic", "kernel_size": 3}
    dataset = BenchmarkDataset({**opt, "max_images": 1, "max_side": side})
    metrics = metrics_of({"psnr": METRICS["psnr"], metric: {"type": f"calculate_{metric}", "crop_border": 4}})
    restored = next(evaluate({"Bicubic": bicubic_restorer(4)}, dataset, metrics, torch.device("cpu")))
    assert [row.metric for row in restored.rows] == ["psnr"]
    assert len(restored.failures) == 1
    assert re.match(rf"photos chelsea\.png bicubic: no {metric}.*too small", restored.failures[0])


def test_a_test_without_alexnet_reports_its_other_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    report = run_test_file(tmp_path, {"type": "calculate_lpips", "crop_border": 4})
    line = "lpips: left out; LPIPS, 'weights': no weights of alexnet, "
    assert line in report
    assert line in capsys.readouterr().out
    assert "| method   |   psnr |" in report
    torch.save(alexnet(), tmp_path / "alexnet.pth")  # relative paths start at the folder of test.py
    report = run_test_file(tmp_path, {"type": "calculate_lpips", "crop_border": 4, "weights": "alexnet.pth"})
    assert "| method   |   psnr |   lpips |" in report
    content = json.loads((tmp_path / "results/test_bicubic/metrics.json").read_text())
    assert content["weights_sha256"].keys() == {"val.metrics.lpips.weights"}


def run_test_file(root, lpips):
    """Bicubic upsampling of one small photograph, PSNR and LPIPS; return the report."""
    opt = parse_yaml((ROOT / "options/test_bicubic.yml").read_text(), "x")
    opt["datasets"] = {"test": {**opt["datasets"]["test_photos"], "max_images": 1, "max_side": 48}}
    opt["val"]["metrics"] = {"psnr": METRICS["psnr"], "lpips": lpips}
    (root / "o.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
    run_test(root, ["-opt", str(root / "o.yml")])
    return (root / "results/test_bicubic/report.md").read_text()


def test_a_training_that_validates_lpips_without_alexnet_ends_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "bicubic"}
    metrics = {"lpips": {"type": "calculate_lpips", "crop_border": 4}}
    opt = stage_options("mln_bicubic", tmp_path, datasets__val=val, val={"val_freq": 2, "metrics": metrics})
    with pytest.raises(UserError, match=r"val\.metrics\.lpips: LPIPS, 'weights': no weights of alexnet"):
        train(opt)
    assert not (tmp_path / opt["name"]).exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_output_is_an_error(dataset, bad):
    broken = network_restorer(lambda lq: torch.full((1, 3, 96, 96), bad))
    with pytest.raises(UserError, match=r"Broken on photos chelsea\.png sigma1\.80"):
        next(evaluate({"Broken": broken}, dataset, metrics_of(METRICS), torch.device("cpu")))


def test_a_slow_first_image_does_not_change_the_time_of_a_method():
    model = SimpleNamespace(restorers=dict.fromkeys(("A", "B", "Oracle")), complexity={"A": (7, 8)}, folders=set())
    seconds = [("A", 60.0), ("B", 4.0), ("A", 1.0), ("B", 6.0), ("A", 2.0)]
    assert _costs(model, seconds) == {"A": MethodCost(7, 8, 2.0), "B": MethodCost(None, None, 5.0)}
