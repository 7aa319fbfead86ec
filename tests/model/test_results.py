"""What a test leaves for a paper: best values, LaTeX, spread, crops, other programs' rows, and after Ctrl-C."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
from statistics import fmean

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from mrda_eval.evaluation import Row
from mrda_eval.panel import BOX
from mrda_eval.report import latex
from mrda_eval.spread import spreads
from mrda_eval.tables import Table
from mrda_eval.words import metric_in_words, set_in_words
from mrda_metric import metrics_of
from mrda_pipeline import benchmark_pipeline
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils.errors import OptionError, Stopped, UserError
from tests.model.test_baselines import baseline

METRICS = {name: {"type": f"calculate_{name}", "crop_border": 4, "test_y_channel": True} for name in ("psnr", "ssim")}
WIDTHS = {"name": "Urban100", "type": "BenchmarkDataset", "protocol": "width", "dataroot_gt": "hr"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder with three photographs in hr/."""
    root = tmp_path_factory.mktemp("results")
    (root / "hr").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a_1", "b", "c"):
        small = Image.fromarray(rng.integers(0, 256, (12, 14, 3), dtype=np.uint8))
        small.resize((72, 64), Image.Resampling.BICUBIC).save(root / f"hr/{name}.png")
    return root


def run(root, name, *flags, **changes):
    """Test bicubic upsampling and what `changes` name; return the folder."""
    opt = {"name": name, "model_type": "MRDATestModel", "scale": 4, "device": "cpu", "panels": 2}
    opt |= {"datasets": {"test": WIDTHS}, "val": {"metrics": METRICS}, **changes}
    (root / f"{name}.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
    run_test(root, ["-opt", str(root / f"{name}.yml"), *flags])
    return root / "results" / name


@pytest.fixture(scope="module")
def folder(root):
    """Report on the widths, with an MLN that knows nothing and another program."""
    run(root, "lr", "--save_lr", "lr")
    rng = np.random.default_rng(1)
    for file in sorted(
        (root / "lr/Urban100").rglob("*.png")
    ):  # the program: ground truth and some noise, as JPEG names
        gt = cv2.imread(str(root / "hr" / file.name)).astype(float)
        target = root / "sr" / file.relative_to(root / "lr").with_suffix(".bmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), np.clip(gt + rng.normal(0, 9, gt.shape), 0, 255).round().astype(np.uint8))
    return run(root, "paper", baselines={"Mine": baseline(root, "MLN")[0], "Program": {"sr": "sr"}})


@pytest.fixture
def rows(folder):
    return list(csv.DictReader((folder / "metrics.csv").open()))


def mean(rows, **of):
    return fmean(float(row["value"]) for row in rows if all(row[key] == value for key, value in of.items()))


def table(text, title):
    """Cells of a Markdown table."""
    lines = text.split(f"\n{title}\n")[1].split("|\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


# ------------------------------------------------------------------------------------------------------------- the text
def test_the_best_value_of_each_column_is_bold_and_published_ones_compete(folder, rows):
    report = (folder / "report.md").read_text()
    header, *body = table(report, "Urban100, width, x4, psnr")
    for column in range(2, len(header)):
        values = [float(row[column].strip("*")) for row in body]
        bold = [row[column].startswith("**") for row in body]
        assert bold == [value == max(values) for value in values]
    assert [row[0] for row in body][-1] == "MRDA_T (published)"
    header, *body = table(report, "Urban100, ssim, kernel by kernel")
    assert header == ["kernel", "Bicubic", "Mine", "Program"]
    for kernel, *cells in body:
        values = [mean(rows, kernel=kernel, metric="ssim", method=method) for method in header[1:]]
        assert [float(cell.strip("*")) for cell in cells] == pytest.approx(values, abs=5e-5)
        assert [cell.startswith("**") for cell in cells] == [value == max(values) for value in values]


def test_the_latex_tables_have_the_same_cells(folder):
    text, report = (folder / "report.tex").read_text(), (folder / "report.md").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule") == 6
    assert text.count("{") == text.count("}")
    tables = re.findall(r"\\begin\{tabular\}\{(l+r*)\}\n\\toprule\n(.+?)\\bottomrule", text, re.DOTALL)
    for columns, body in tables:
        for line in body.replace("\\midrule\n", "").splitlines():
            assert line.endswith(r" \\")
            assert len(line.split(" & ")) == len(columns)
    first = [line.removesuffix(r" \\").split(" & ") for line in tables[0][1].replace("\\midrule\n", "").splitlines()]
    cells = [[re.sub(r"\\textbf\{(.*)\}", r"**\1**", cell).replace(r"\_", "_") for cell in row] for row in first]
    assert cells == table(report, "Urban100, width, x4, psnr")


def test_what_latex_would_take_for_commands_is_written_out():
    found = Table(
        "X", "a_b & 50%", "", ["method", "psnr"], [["A_1 #2", 1.0], ["B{}", 2.0]], ("", ".2f"), frozenset({(1, 1)})
    )
    text = latex([found])
    assert r"\caption{a\_b \& 50\%.}" in text
    assert "A\\_1 \\#2 & 1.00 \\\\\nB\\{\\} & \\textbf{2.00} \\\\" in text


def test_protocol_and_metrics_are_said_in_words(folder):
    report = (folder / "report.md").read_text()
    assert "{" not in report
    assert "psnr: PSNR in dB on Y (BT.601, 16-235), 4 pixels left out at each side" in report
    assert (
        "Urban100: 4 isotropic Gaussian blurs of 0 to 3.6 pixels (21x21 kernels), bicubic downsampling by 4" in report
    )


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ({"protocol": "bicubic"}, "S: no blur, bicubic downsampling by 4 (MATLAB's, with antialiasing), LR rounded"),
        (
            {"protocol": "gaussian8", "max_images": 2},
            "S: 8 isotropic Gaussian blurs of 1.8 to 3.2 pixels .*max images 2",
        ),
        ({"protocol": "aniso9_dasr"}, "S: 9 anisotropic Gaussian blurs of 0.2 to 4 .*deviation 0, 10, 20 \\(0-255\\)"),
        ({"protocol": "realesrgan"}, "S: 8 fixed draws of realesrgan's degradation, scale 4"),
        ({"dataroot_gt": "x", "dataroot_lq": "y"}, "S: LR images as given, with ground truth"),
        ({"dataroot_lq": "y"}, "S: LR images as given, without ground truth"),
        ({"protocol": "bicubic", "dataroot_lq": "y"}, "S: LR images as given in y, for protocol bicubic"),
    ],
)
def test_a_test_set_in_words(opt, words):
    assert re.match(
        words.replace("(MATLAB's, with antialiasing)", ".*"),
        set_in_words({"name": "S", "scale": 4, "kernel_size": 21, **opt}),
    )


def test_a_metric_that_is_better_when_lower_says_so():
    niqe = metrics_of({"n": {"type": "calculate_niqe", "crop_border": 0, "convert_to": "y"}})[0]
    assert metric_in_words(niqe) == "n: NIQE on Y (BT.601, 16-235), lower is better, no border left out"


# ---------------------------------------------------------------------------------------------------- the spread
def rows_of(**values):
    """A row an image and kernel for each method; each value is split over two kernels."""
    return [
        Row("S", f"{image}.png", kernel, method, "psnr", value + shift)
        for method, of_images in values.items()
        for image, value in enumerate(of_images)
        for kernel, shift in (("k1", -1.0), ("k2", 1.0))
    ]


def test_the_interval_is_that_of_paired_differences():
    rng = np.random.default_rng(0)
    images, gain = rng.normal(28, 4, 60), rng.normal(0.5, 0.3, 60)
    bicubic, student = spreads(rows_of(Bicubic=images, Student=images + gain), "Student")
    assert bicubic.std == pytest.approx(images.std(ddof=1))
    assert (bicubic.images, student.difference) == (60, None)
    assert bicubic.difference == pytest.approx(gain.mean())
    half = 1.96 * gain.std(ddof=1) / np.sqrt(60)  # that of the unpaired means would be eight times as wide
    assert bicubic.low == pytest.approx(gain.mean() - half, abs=0.1 * half)
    assert bicubic.high == pytest.approx(gain.mean() + half, abs=0.1 * half)


def test_a_single_image_has_no_spread():
    assert spreads(rows_of(Bicubic=[30.0], Student=[31.0]), "Student") == []


def test_spread_is_in_report_and_json(folder, rows):
    header, *body = table((folder / "report.md").read_text(), "Urban100, spread over images")
    found = json.loads((folder / "metrics.json").read_text())["spreads"]
    assert header == ["method", "psnr: std", "Program - it", "ssim: std", "Program - it"]
    images = {row["image"] for row in rows}
    for row in body:
        values = [mean(rows, method=row[0], metric="psnr", image=image) for image in sorted(images)]
        assert float(row[1]) == pytest.approx(np.std(values, ddof=1), abs=5e-3)
        entry = next(e for e in found if (e["method"], e["metric"]) == (row[0], "psnr"))
        assert entry["std"] == pytest.approx(np.std(values, ddof=1))
        if row[0] == "Program":
            assert row[2] == "-"
        else:
            assert row[2] == f"{entry['difference']:+.2f} [{entry['low']:+.2f}, {entry['high']:+.2f}]"


# ----------------------------------------------------------------------------------------------------- another program
def test_another_programs_images_are_a_row(folder, rows, root):
    psnr = metrics_of(METRICS)[0]
    for row in rows:
        if (row["method"], row["metric"]) == ("Program", "psnr"):
            stem = row["image"].removesuffix(".png")
            sr, gt = (
                cv2.imread(str(root / f"sr/Urban100/{row['kernel']}/{stem}.bmp")),
                cv2.imread(str(root / f"hr/{stem}.png")),
            )
            assert float(row["value"]) == pytest.approx(psnr.measure(sr, gt, ""))
    costs = json.loads((folder / "metrics.json").read_text())["costs"]
    assert set(costs) == {"Bicubic", "Mine"}


@pytest.mark.parametrize("wrong", ["missing", "size"])
def test_the_first_image_that_disagrees_is_named_before_anything_is_restored(folder, root, tmp_path, wrong):
    copy = tmp_path / "sr/Urban100"
    for file in (root / "sr/Urban100").rglob("*.bmp"):
        target = copy / file.relative_to(root / "sr/Urban100")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    victim = copy / "sigma1.20/b.bmp"
    victim.unlink()
    if wrong == "size":
        Image.new("RGB", (36, 32)).save(victim)
    message = {
        "missing": r"sigma1\.20/b\.png is missing",
        "size": r"b\.bmp: 32x36 pixels, but b\.png has 64x72 at scale 4",
    }
    with pytest.raises(UserError, match=rf"baselines\.Program\.sr: .*{message[wrong]}"):
        run(root, "wrong", baselines={"Program": {"sr": str(tmp_path / "sr")}})
    assert not (root / "results/wrong").exists()


def test_two_images_do_not_share_one_of_another_program(root, tmp_path):
    (tmp_path / "hr").mkdir()
    for name in ("b.png", "b.bmp"):
        Image.open(root / "hr/b.png").save(tmp_path / "hr" / name)
    for kernel in ("bicubic", "sigma1.20", "sigma2.40", "sigma3.60"):
        (tmp_path / "sr/Urban100" / kernel).mkdir(parents=True)
        Image.open(root / "hr/b.png").save(tmp_path / "sr/Urban100" / kernel / "b.png")
    datasets = {"test": {**WIDTHS, "dataroot_gt": str(tmp_path / "hr")}}
    with pytest.raises(UserError, match=r"Program\.sr: .*b\.png would be that of b\.bmp and of b\.png; rename one"):
        run(root, "shared", datasets=datasets, baselines={"Program": {"sr": str(tmp_path / "sr")}})


def test_a_baseline_is_a_network_or_a_folder(root):
    with pytest.raises(
        OptionError, match=r"baselines\.X: network, sr is given; it takes network and path, or sr alone"
    ):
        run(root, "both", baselines={"X": {"sr": "sr", "network": {"type": "MLN", "num_feat": 4, "upscale": 4}}})


# ------------------------------------------------------------------------------------------------------------- pictures
def test_a_chosen_part_is_enlarged_beside_the_whole_image_as_png_and_pdf(root, folder):
    found = run(root, "crop", val={"metrics": METRICS, "panel_crop": {"b": [16, 24, 32]}}, panels=1)
    (panel,) = (found / "panels/Urban100").glob("*.png")
    assert panel.name.startswith("b_")
    pixels = np.asarray(Image.open(panel))
    gt = cv2.imread(str(root / "hr/b.png"))[..., ::-1]
    part = np.asarray(Image.fromarray(gt[24:56, 16:48]).resize((256, 256), Image.Resampling.NEAREST))
    assert np.array_equal(pixels[22:, -256:], part)
    whole = pixels[22:, : round(72 * 256 / 64)]
    red = (whole == BOX[::-1]).all(-1)
    rows, columns = np.nonzero(red)
    found = np.array([rows.min(), rows.max(), columns.min(), columns.max()]) / 4
    assert found == pytest.approx([24, 55.75, 16, 47.75], abs=1.1)  # the line's own width
    pdf = panel.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    image = np.asarray(Image.open(io.BytesIO(pdf[pdf.index(b"\xff\xd8\xff") :])))
    assert np.abs(image.astype(int) - pixels).mean() < 1


def test_a_crop_of_no_image_is_refused(root):
    with pytest.raises(OptionError, match="panel_crop: 'a1' is no image of the test sets, did you mean 'a_1'"):
        run(root, "none", val={"metrics": METRICS, "panel_crop": {"a1": [0, 0, 8]}})


# ------------------------------------------------------------------------------------------- in parts, interrupted
def test_no_published_values_beside_a_set_that_lacks_an_image(root, tmp_path):
    shutil.copytree(root / "hr", tmp_path / "hr")
    datasets = {"test": {**WIDTHS, "protocol": "gaussian8", "dataroot_gt": str(tmp_path / "hr")}}
    for name, has_all in (("whole", True), ("lacking", False)):
        if not has_all:
            (tmp_path / "hr/d.png").write_text("no image")
        found = run(root, name, datasets=datasets)
        for file in ("report.md", "report.tex", "index.html"):
            assert ("(published)" in (found / file).read_text()) == has_all


def test_an_interrupted_test_leaves_what_it_measured_marked_as_incomplete(root, monkeypatch):
    original, count = benchmark_pipeline.evaluate, iter(range(100))

    def evaluate(*args):
        for restored in original(*args):
            if next(count) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield restored

    monkeypatch.setattr(benchmark_pipeline, "evaluate", evaluate)
    with pytest.raises(
        Stopped, match=r"stopped by SIGINT; what was measured is in .*half, marked as incomplete"
    ) as end:
        run(root, "half")
    assert end.value.code == 130
    folder = root / "results/half"
    assert json.loads((folder / "metrics.json").read_text())["complete"] is False
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 3 * 2
    report = (folder / "report.md").read_text()
    assert report.startswith("# half (incomplete)\n")
    assert "Incomplete: the test was interrupted" in report
    assert "published" not in report
    assert "half (incomplete)" in (folder / "index.html").read_text()
