from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from mrda_eval.panel import side_by_side
from mrda_eval.published import published_cases, published_rows
from mrda_eval.report import write_csv, write_json
from mrda_eval.tables import KernelTable, MethodCost, comparisons, cost_table, text_of
from mrda_metric import metrics_of

MEANS = {("Set5", "Student", "psnr"): 31.0, ("Set5", "Student", "ssim"): 0.88, ("X", "Student", "psnr"): 25.0}

OPT = {"protocol": "gaussian8", "kernel_size": 21}
METRICS = {name: {"type": f"calculate_{name}", "crop_border": 4, "test_y_channel": True} for name in ("psnr", "ssim")}


def tables(means, datasets, metrics, scale, fmt, by_kernel=None):
    return text_of(comparisons(means, datasets, metrics, scale, by_kernel), fmt)


def test_published_rows_stand_where_the_protocol_matches():
    text = tables(MEANS, {"Set5": OPT, "X": OPT}, metrics_of(METRICS), 4, "github")
    set5, other = text.split("X, gaussian8")
    assert "| MRDA_S (published)    |  31.98 | 0.8872 |" in set5
    assert "| Student               |  31.00 | 0.8800 |" in set5
    assert "published" not in other


@pytest.mark.parametrize("change", [{"kernel_size": 15}, {"max_images": 1}, {"max_side": 64}])
def test_no_published_row_beside_part_of_the_protocol(change):
    assert "published" not in tables(MEANS, {"Set5": {**OPT, **change}}, metrics_of(METRICS), 4, "github")


@pytest.mark.parametrize("change", [{"crop_border": 0}, {"test_y_channel": False}])
def test_no_published_row_beside_another_metric(change):
    metrics = {**METRICS, "psnr": {**METRICS["psnr"], **change}}
    text = tables(MEANS, {"Set5": OPT}, metrics_of(metrics), 4, "github")
    assert "| MRDA_S (published)    |      - | 0.8872 |" in text
    both = {name: {**opt, **change} for name, opt in METRICS.items()}
    assert "published" not in tables(MEANS, {"Set5": OPT}, metrics_of(both), 4, "github")


def test_a_metric_of_another_name_has_the_published_values_of_its_type():
    means = {("Set5", "Student", "psnr_y"): 31.0, ("Set5", "Student", "psnr"): 29.5}
    metrics = {"psnr_y": METRICS["psnr"], "psnr": {"type": "calculate_psnr", "crop_border": 4}}
    text = tables(means, {"Set5": OPT}, metrics_of(metrics), 4, "github")
    assert "| MRDA_S (published)    |    31.98 |      - |" in text


@pytest.mark.parametrize(
    ("dataset", "protocol", "scale"), [("Set5", "bicubic", 4), ("Set5", "gaussian8", 2), ("X", "gaussian8", 4)]
)
def test_no_published_row_of_another_protocol(dataset, protocol, scale):
    assert published_rows(dataset, protocol, scale) == []


def test_metrics_that_were_not_published_change_nothing():
    metrics = {**METRICS, "lpips": {"type": "calculate_lpips", "crop_border": 0}}
    means = {**MEANS, ("Set5", "Student", "lpips"): 0.12345}
    text = tables(means, {"Set5": OPT}, metrics_of(metrics), 4, "github")
    assert "| Student               |  31.00 | 0.8800 |  0.1235 |" in text
    assert "| MRDA_S (published)    |  31.98 | 0.8872 |       - |" in text
    only = {("Set5", "Student", "lpips"): 0.12345}
    assert "published" not in tables(only, {"Set5": OPT}, metrics_of({"lpips": metrics["lpips"]}), 4, "github")


def test_a_variant_of_a_benchmark_has_its_published_rows():
    assert published_rows("Set5_mine", "gaussian8", 4) == published_rows("Set5", "gaussian8", 4) != []


CASES = [(f"{k}_n{noise}", str(k), noise) for noise in (0.0, 10.0, 20.0) for k in range(1, 10)]
VALUES = {("Student", m, label): 20.0 + i for m in ("psnr", "ssim") for i, (label, _, _) in enumerate(CASES)}


def kernel_tables(name, protocol, cases=CASES, note=""):
    """Lines of the tables of one data set, by their first cell and noise level."""
    means = {(name, "Student", metric): 1.0 for metric in ("psnr", "ssim")}
    opts = {name: {**OPT, "protocol": protocol}}
    text = tables(means, opts, metrics_of(METRICS), 4, "github", {name: KernelTable(cases, VALUES, note)})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return text, {(row[0], row[1]): row[2:] for row in rows}


def test_kernels_are_columns_and_noise_levels_rows_under_the_note():
    text, _ = kernel_tables("X", "aniso9_mrda", note="an estimate")
    psnr, ssim = text.split("X, aniso9_mrda, x4, ssim")
    assert psnr.startswith("X, aniso9_mrda, x4, psnr\n\naniso9_mrda: an estimate\n\n| method")
    assert ssim.startswith("\n\naniso9_mrda: an estimate\n\n| method")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in psnr.splitlines() if line[:1] == "|"]
    assert rows[0] == ["method", "noise", *"123456789", "mean"]
    assert rows[2] == ["Student", "0", *(f"{v}.00" for v in range(20, 29)), "24.00"]
    assert rows[4] == ["Student", "20", *(f"{v}.00" for v in range(38, 47)), "42.00"]
    assert len(rows) == 5


def floats(row):
    return [float(cell) for cell in row[:-1]]  # without the mean


def test_table_iii_stands_beside_the_estimated_list_and_nowhere_else():
    text, rows = kernel_tables("Set14_aniso9_mrda", "aniso9_mrda")
    assert floats(rows["MRDA_S (published)", "0"]) == [27.45, 27.85, 28.04, 28.09, 28.01, 27.85, 27.64, 27.63, 26.29]
    assert floats(rows["MRDA_S (published)", "20"]) == [24.71, 24.79, 24.87, 24.86, 24.90, 24.80, 24.69, 24.54, 23.81]
    assert rows["DnCNN + IKC (published)", "10"][8] == "23.14"
    assert text.count("published") == 5 * 3  # beside PSNR alone
    for name, protocol in (("Set14_aniso9_dasr", "aniso9_dasr"), ("Set5", "aniso9_mrda"), ("Set14", "width")):
        cases = CASES[:4] if protocol == "width" else CASES
        assert "published" not in kernel_tables(name, protocol, cases)[0]


def test_table_vi_stands_beside_the_widths():
    _, rows = kernel_tables("Urban100", "width", CASES[:4])
    assert rows["MRDA_T (published)", "0"] == ["26.48", "26.47", "26.25", "25.41", "26.15"]
    assert rows["MRDA_T, upscaler not fixed (published)", "0"][:4] == ["26.44", "26.42", "26.09", "25.22"]


@pytest.mark.parametrize("scale", [2, 3])
def test_published_cases_are_for_x4(scale):
    assert published_cases("Set14", "aniso9_mrda", scale) == {}


def test_a_set_without_ground_truth_has_a_table_of_its_metrics():
    means = {("Own", "Bicubic", "niqe"): 5.678, ("Own", "Student", "niqe"): 4.321}
    text = tables(
        means, {"Own": {}, "None": {}}, metrics_of({"niqe": {"type": "calculate_niqe", "crop_border": 4}}), 4, "github"
    )
    assert text.startswith("Own, LR images as given, x4\n\n| method   |   niqe |")
    assert "| Student  |   4.32 |" in text
    assert "None" not in text


def test_csv_and_json_hold_every_value(tmp_path):
    rows = [("Set5", "a,b.png", "sigma1.80", "Student", "psnr", 30.123456789)]
    write_csv(rows, ("dataset", "image", "kernel", "method", "metric", "value"), tmp_path / "m.csv")
    read = list(csv.DictReader((tmp_path / "m.csv").open()))
    assert read[0]["image"] == "a,b.png"
    assert float(read[0]["value"]) == 30.123456789
    (tmp_path / "w.pth").write_bytes(b"")
    costs = {"Bicubic": MethodCost(None, None, 0.5), "Student": MethodCost(5_838_713, 171_500_000_000, 2.0)}
    write_json(MEANS, costs, "x", "0" * 64, {"pretrain_network_g": str(tmp_path / "w.pth")}, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    assert content["means"][0] == {"dataset": "Set5", "method": "Student", "metric": "psnr", "value": 31.0}
    assert content["costs"]["Student"] == {"parameters": 5838713, "mult_adds": 171500000000, "seconds": 2.0}
    assert content["weights_sha256"]["pretrain_network_g"].startswith("e3b0c44298fc1c14")  # of nothing
    assert content["versions"]["basicsr"] == "1.4.2"
    assert content["versions"]["opencv"] == cv2.__version__


def test_costs_are_in_the_papers_units():
    costs = {"Bicubic": MethodCost(None, None, 0.5), "Student": MethodCost(5_838_713, 171_536_000_000, 2.0)}
    assert text_of([cost_table(costs)], "github").splitlines()[2:] == [
        "| method   |   Param (M) |   Mult-Adds (G) |   median s / image |",
        "|----------|-------------|-----------------|--------------------|",
        "| Bicubic  |           - |               - |              0.500 |",
        "| Student  |        5.84 |          171.54 |              2.000 |",
    ]


def test_a_panel_shows_every_picture_and_the_kernel():
    red, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    red[..., 2], blue[..., 0] = 255, 255  # BGR
    kernel = np.zeros((21, 21))
    kernel[10, 10] = 1
    without = np.array(side_by_side({"LR": blue, "GT": red}, None, height=128))
    assert without[22 + 128 - 32, 31].tolist() == [0, 0, 255]
    image = np.array(side_by_side({"LR": blue, "GT": red}, kernel, height=128))
    assert image.shape == (150, 260, 3)
    assert image[60, 60].tolist() == [0, 0, 255]
    assert image[60, 200].tolist() == [255, 0, 0]
    assert image[22 + 128 - 32, 31].tolist() == [255, 255, 255]


def test_a_cell_that_a_spreadsheet_would_compute_begins_with_a_folder(tmp_path):
    write_csv([("=1+1.png", -3.5, "a=b"), ("@x", "-x", "+x")], ("image", "value", "kernel"), tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text().splitlines() == [
        "image,value,kernel",
        "./=1+1.png,-3.5,a=b",
        "./@x,./-x,./+x",
    ]
