from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from mrda_data import BenchmarkDataset
from mrda_model.evaluation import Row, bicubic_restorer, evaluate, means, network_restorer
from mrda_utils.errors import UserError

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
    first = next(evaluate({"Bicubic": bicubic_restorer(4)}, dataset, METRICS, torch.device("cpu")))
    sr, gt = (luma(image)[4:-4, 4:-4] for image in (first.sr["Bicubic"], first.gt))
    values = {row.metric: row.value for row in first.rows}
    assert values["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((sr - gt) ** 2)), abs=1e-4)
    ssim = structural_similarity(
        sr, gt, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1][5:-5, 5:-5].mean()
    assert values["ssim"] == pytest.approx(ssim, abs=1e-3)


def test_every_item_method_and_metric_has_a_row(dataset):
    restorers = {"Bicubic": bicubic_restorer(4), "Bicubic again": bicubic_restorer(4)}
    rows = [row for item in evaluate(restorers, dataset, METRICS, torch.device("cpu")) for row in item.rows]
    assert len(rows) == len(set(rows)) == 8 * 2 * 2
    measured = means(rows)
    assert measured["photos", "Bicubic", "psnr"] == measured["photos", "Bicubic again", "psnr"]
    by_hand = [row.value for row in rows if row.method == "Bicubic" and row.metric == "psnr"]
    assert measured["photos", "Bicubic", "psnr"] == pytest.approx(np.mean(by_hand))


def test_means_average_images_not_squared_errors():
    rows = [Row("d", "a", "k", "m", "psnr", 20.0), Row("d", "b", "k", "m", "psnr", 40.0)]
    assert means(rows) == {("d", "m", "psnr"): 30.0}


def test_an_image_too_small_for_a_metric_is_named():
    opt = {"name": "photos", "dataroot_gt": "bundled:test", "scale": 4, "protocol": "bicubic", "kernel_size": 3}
    tiny = BenchmarkDataset({**opt, "max_images": 1, "max_side": 16})
    with pytest.raises(UserError, match=r"photos chelsea\.png bicubic: no ssim"):
        next(evaluate({"Bicubic": bicubic_restorer(4)}, tiny, METRICS, torch.device("cpu")))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_output_is_an_error(dataset, bad):
    broken = network_restorer(lambda lq: torch.full((1, 3, 96, 96), bad))
    with pytest.raises(UserError, match=r"Broken on photos chelsea\.png sigma1\.80"):
        next(evaluate({"Broken": broken}, dataset, METRICS, torch.device("cpu")))
