from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from mrda_utils.published import published_rows
from mrda_utils.report import panel, tables, write_csv, write_json

MEANS = {("Set5", "Student", "psnr"): 31.0, ("Set5", "Student", "ssim"): 0.88, ("X", "Student", "psnr"): 25.0}

OPT = {"protocol": "gaussian8", "kernel_size": 21}
METRICS = {name: {"type": f"calculate_{name}", "crop_border": 4, "test_y_channel": True} for name in ("psnr", "ssim")}


def test_published_rows_stand_where_the_protocol_matches():
    text = tables(MEANS, {"Set5": OPT, "X": OPT}, METRICS, 4, "github")
    set5, other = text.split("X, gaussian8")
    assert "| MRDA_S (published) |  31.98 | 0.8872 |" in set5
    assert "| Student            |  31.00 | 0.8800 |" in set5
    assert "published" not in other


@pytest.mark.parametrize("change", [{"kernel_size": 15}, {"max_images": 1}, {"max_side": 64}])
def test_no_published_row_beside_part_of_the_protocol(change):
    assert "published" not in tables(MEANS, {"Set5": {**OPT, **change}}, METRICS, 4, "github")


@pytest.mark.parametrize("change", [{"crop_border": 0}, {"test_y_channel": False}])
def test_no_published_row_beside_another_metric(change):
    metrics = {**METRICS, "psnr": {**METRICS["psnr"], **change}}
    assert "published" not in tables(MEANS, {"Set5": OPT}, metrics, 4, "github")


@pytest.mark.parametrize(
    ("dataset", "protocol", "scale"), [("Set5", "bicubic", 4), ("Set5", "gaussian8", 2), ("X", "gaussian8", 4)]
)
def test_no_published_row_of_another_protocol(dataset, protocol, scale):
    assert published_rows(dataset, protocol, scale) == []


def test_metrics_that_were_not_published_change_nothing():
    metrics = {**METRICS, "lpips": {"type": "calculate_lpips", "crop_border": 0}}
    means = {**MEANS, ("Set5", "Student", "lpips"): 0.12345}
    text = tables(means, {"Set5": OPT}, metrics, 4, "github")
    assert "| Student            |  31.00 | 0.8800 |  0.1235 |" in text
    assert "| MRDA_S (published) |  31.98 | 0.8872 |  -      |" in text
    only = {("Set5", "Student", "lpips"): 0.12345}
    assert "published" not in tables(only, {"Set5": OPT}, {"lpips": metrics["lpips"]}, 4, "github")


def test_csv_and_json_hold_every_value(tmp_path):
    rows = [("Set5", "a,b.png", "sigma1.80", "Student", "psnr", 30.123456789)]
    write_csv(rows, ("dataset", "image", "kernel", "method", "metric", "value"), tmp_path / "m.csv")
    read = list(csv.DictReader((tmp_path / "m.csv").open()))
    assert read[0]["image"] == "a,b.png"
    assert float(read[0]["value"]) == 30.123456789
    (tmp_path / "w.pth").write_bytes(b"")
    write_json(MEANS, "x", "0" * 64, {"pretrain_network_g": str(tmp_path / "w.pth")}, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    assert content["means"][0] == {"dataset": "Set5", "method": "Student", "metric": "psnr", "value": 31.0}
    assert content["weights_sha256"]["pretrain_network_g"].startswith("e3b0c44298fc1c14")  # of nothing
    assert content["versions"]["basicsr"] == "1.4.2"


def test_a_panel_shows_every_picture_and_the_kernel():
    red, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    red[..., 2], blue[..., 0] = 255, 255  # BGR
    kernel = np.zeros((21, 21))
    kernel[10, 10] = 1
    image = np.array(panel({"LR": blue, "GT": red}, kernel, height=128))
    assert image.shape == (150, 260, 3)
    assert image[60, 60].tolist() == [0, 0, 255]
    assert image[60, 200].tolist() == [255, 0, 0]
    assert image[22 + 128 - 32, 31].tolist() == [255, 255, 255]
