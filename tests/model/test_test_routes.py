"""What a test measures does not depend on where its images come from; own LR images are tested without ground truth."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mrda_arch import MLN, MRDANet
from mrda_data import BenchmarkDataset, LQDataset
from mrda_eval.evaluation import evaluate
from mrda_model.restorers import bicubic_restorer, network_restorer
from mrda_model.weights import Provenance, save_network
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from scripts.prepare_data import pack
from tests.model.conftest import SIZE

METRICS = {
    "psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True},
    "ssim": {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True},
}
NIQE = {"niqe": {"type": "calculate_niqe", "crop_border": 4}}
SET = {"name": "X", "type": "BenchmarkDataset", "protocol": "aniso9_mrda"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Student, teacher and MLN of the smallest size, not trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    nets = {
        "g": (MRDANet(**SIZE), "MRDAStudentModel"),
        "t": (MRDANet(**SIZE, den_in_ch=4), "MRDATeacherModel"),
        "mln": (MLN(num_feat=4), "MLNMetaModel"),
    }
    for label, (net, stage) in nets.items():
        save_network({"params": net}, Provenance(stage, 4, "x"), 1, folder / f"{label}.pth")
    return folder


@pytest.fixture
def run(tmp_path, weights):
    """Function that tests all networks on data sets; returns report, rows of metrics.csv and metrics.json."""

    def run(name, datasets, metrics=METRICS, flags=(), folder=weights, device="cpu", **val):
        net = {"type": "MRDANet", **SIZE, "upscale": 4}
        opt = {
            "name": name,
            "model_type": "MRDATestModel",
            "scale": 4,
            "device": device,
            "datasets": datasets,
            "network_g": {**net, "den_in_ch": 3},
            "network_t": {**net, "den_in_ch": 4},
            "network_mln": {"type": "MLN", "num_feat": 4, "upscale": 4},
            "adaptation": {"inner_lrs": [0.01]},
            "path": {f"pretrain_network_{label}": str(folder / f"{label}.pth") for label in ("g", "t", "mln")},
            "val": {"metrics": metrics, **val},
        }
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
        run_test(tmp_path, ["-opt", str(tmp_path / "o.yml"), *flags])
        results = tmp_path / "results" / name
        rows = list(csv.reader((results / "metrics.csv").open()))
        return (results / "report.md").read_text(), rows, json.loads((results / "metrics.json").read_text())

    return run


@pytest.fixture
def hr(tmp_path):
    """Two images as PNG."""
    rng = np.random.default_rng(0)
    (tmp_path / "hr").mkdir()
    for name in ("a", "b"):
        small = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
        small.resize((41, 37), Image.Resampling.BICUBIC).save(tmp_path / "hr" / f"{name}.png")
    return tmp_path / "hr"


def test_every_route_gives_identical_numbers(run, hr, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    report, _, made = run("made", {"test": {**SET, "dataroot_gt": "hr"}}, flags=["--save_lr", "lr"])
    assert not list((tmp_path / "elsewhere").iterdir())
    rows = (tmp_path / "results/made/metrics.csv").read_bytes()
    assert rows.count(b"\n") == 1 + 2 * 27 * 3 * 2  # images, cases, methods, metrics
    assert "estimate" in report
    pack(hr, 1)
    pack(tmp_path / "lr/X", 1)
    hr.rename(tmp_path / "kept")  # what is read is what is named
    (tmp_path / "lr/X").rename(tmp_path / "lr/kept")
    for gt, lr in (("hr.lmdb", None), ("kept", "lr/kept"), ("kept", "lr/X.lmdb"), ("hr.lmdb", "lr/X.lmdb")):
        roots = {"dataroot_gt": gt, **({"dataroot_lq": lr} if lr else {})}  # they start at the folder of test.py
        _, _, read = run("read", {"test": {**SET, **roots}})
        assert (tmp_path / "results/read/metrics.csv").read_bytes() == rows
        assert read["means"] == made["means"]


def test_an_existing_lr_folder_ends_the_test_before_it_starts(run, hr, tmp_path):
    (tmp_path / "lr/X").mkdir(parents=True)
    datasets = {"test_new": {**SET, "dataroot_gt": str(hr), "name": "New"}, "test": {**SET, "dataroot_gt": str(hr)}}
    with pytest.raises(UserError, match=r"--save_lr: .*lr/X exists; delete it or choose another folder"):
        run("made", datasets, flags=["--save_lr", str(tmp_path / "lr")])
    assert not (tmp_path / "results").exists()
    assert [path.name for path in (tmp_path / "lr").iterdir()] == ["X"]


def test_without_images_to_degrade_there_is_no_lr_set(run, tmp_path):
    with pytest.raises(UserError, match=r"--save_lr: it is for a BenchmarkDataset, none of Own is one"):
        run("own", {"test": OWN}, NIQE, flags=["--save_lr", "lr"])
    assert not (tmp_path / "lr").exists()
    assert not (tmp_path / "results").exists()


# ------------------------------------------------------------------------------------------------------ own LR images
OWN = {"name": "Own", "type": "LQDataset", "dataroot_lq": "bundled:test", "max_images": 2, "max_side": 56}


def test_own_lr_images_have_rows_of_what_needs_no_ground_truth(run, hr, capsys):
    datasets = {"test": {**SET, "dataroot_gt": str(hr), "protocol": "bicubic"}, "test_own": OWN}
    report, rows, _ = run("own", datasets, METRICS)
    line = "Own: has no ground truth, so without Teacher (oracle), psnr, ssim"
    assert line in report
    assert line in capsys.readouterr().out
    assert not [row for row in rows if row[0] == "Own"]
    report, rows, _ = run("own", {"test": OWN}, {**METRICS, **NIQE})
    assert [row[1:5] for row in rows[1:]] == [
        [image, "unknown", method, "niqe"]
        for image in ("chelsea.png", "rocket.jpg")
        for method in ("Bicubic", "Student")
    ]
    assert "Own, LR images as given, x4\n\n| method   |     niqe |" in report


def test_own_lr_images_are_shown_without_ground_truth_and_kernel(run, tmp_path):
    run("own", {"test": OWN}, NIQE)
    panels = sorted((tmp_path / "results/own/panels/Own").glob("*.png"))
    assert [path.name for path in panels] == ["chelsea_unknown.png", "rocket_jpg_unknown.png"]
    assert Image.open(panels[0]).size == (3 * 256 + 2 * 4, 256 + 22)  # LR, bicubic, student


def test_own_lr_items(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    dataset = LQDataset({"name": "x", "dataroot_lq": str(tmp_path), "scale": 4})
    assert len(dataset) == 1
    assert torch.equal((255 * dataset[0]["lq"]).round().permute(1, 2, 0).byte(), torch.from_numpy(pixels))
    cropped = LQDataset({"name": "x", "dataroot_lq": str(tmp_path), "scale": 4, "max_side": 5})
    assert torch.equal(cropped[0]["lq"], dataset[0]["lq"][:, 1:6, 2:7])


def test_a_missing_folder_of_own_images_is_left_out_by_name(run, hr, capsys):
    run("x", {"test": {**SET, "dataroot_gt": str(hr), "protocol": "bicubic"}, "test_own": {**OWN, "dataroot_lq": "no"}})
    assert "Own: left out; put its images into " in capsys.readouterr().out


def test_every_sr_image_is_written_on_request(run, hr, tmp_path):
    Image.open(hr / "a.png").convert("RGB").save(hr / "a.jpg")
    dataset = {**SET, "dataroot_gt": str(hr), "protocol": "bicubic"}
    _, rows, _ = run("x", {"test": dataset}, save_img=True)
    folder = tmp_path / "results/x/visualization/X"
    images = {(row[3], row[1]) for row in rows if row[0] == "X"}
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    stems = {"a.jpg": "a_jpg", "a.png": "a", "b.png": "b"}
    assert {name for _, name in images} == set(stems)
    assert written == {f"{method}/bicubic/{stems[name]}.png" for method, name in images}
    gt = np.asarray(Image.open(hr / "a.png").convert("RGB"))
    bicubic = np.asarray(Image.open(folder / "Bicubic/bicubic/a.png"))
    assert 0 < np.abs(bicubic - gt[: len(bicubic), : bicubic.shape[1]].astype(int)).mean() < 60
    assert {path.name for path in (tmp_path / "results/x/panels/X").glob("*.png")} == {
        f"{stem}_bicubic.png" for stem in stems.values()
    }
    run("x", {"test": dataset})
    assert not folder.exists()


# --------------------------------------------------------------------------------------- LR images with ground truth
@pytest.fixture
def pairs(run, hr, tmp_path):
    """The images of `hr` as a camera's pairs: sides multiples of 4, partners with names of their own."""
    made = {**SET, "dataroot_gt": str(hr), "protocol": "bicubic"}
    run("made", {"test": made}, flags=["--save_lr", str(tmp_path / "lr")])
    for kind in ("real_hr", "real_lr"):
        (tmp_path / kind).mkdir()
    for name in ("a", "b"):
        Image.open(hr / f"{name}.png").crop((0, 0, 40, 36)).save(tmp_path / f"real_hr/{name}_HR.png")
        next((tmp_path / "lr/X").rglob(f"{name}.png")).rename(tmp_path / f"real_lr/{name}_LR4.png")
    roots = {f"dataroot_{key}": str(tmp_path / f"real_{kind}") for key, kind in (("gt", "hr"), ("lq", "lr"))}
    return {"name": "Real", "type": "PairedDataset", **roots}


def test_pairs_give_the_numbers_of_the_route_that_made_them(run, hr, pairs):
    made = {**SET, "dataroot_gt": pairs["dataroot_gt"], "protocol": "bicubic"}
    report, rows, _ = run("both", {"test": made, "test_real": pairs})
    values = {name: [row[3:] for row in rows if row[0] == name] for name in ("X", "Real")}
    assert len(values["Real"]) == 2 * 3 * 2  # images, methods, metrics
    assert values["Real"] == values["X"]
    assert {row[1] for row in rows if row[0] == "Real"} == {"a_LR4.png", "b_LR4.png"}
    assert "Real, LR images as given, x4" in report


def test_pairs_that_do_not_belong_together_are_named(run, pairs, tmp_path, capsys):
    Image.new("RGB", (10, 10)).save(tmp_path / "real_lr/b_LR4.png")
    with pytest.raises(UserError, match=r"Real: b_LR4\.png has 10x10 pixels and its ground truth b_HR\.png 36x40"):
        run("x", {"test": pairs})
    (tmp_path / "real_lr/b_LR4.png").unlink()
    with pytest.raises(UserError, match=r"Real: HR image a_HR\.png has no LR image .* \(2 HR and 1 LR images\)"):
        run("x", {"test": pairs})
    run("x", {"test": {**pairs, "dataroot_lq": "no"}, "test_own": OWN}, NIQE)
    assert "Real: left out; put its images into " in capsys.readouterr().out


# -------------------------------------------------------------------------------------------- outputs without a value
@pytest.mark.parametrize("label", ["g", "t"])
@pytest.mark.parametrize("route", ["hr", "lr set", "own"])
def test_weights_that_are_not_finite_end_the_test_on_every_route(run, hr, weights, tmp_path, route, label):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in weights.iterdir():
        content = checkpoint.load(path)
        if path.stem == label:
            for name in ("rdan.head.weight", "rdan.body_tail.weight"):
                content["params"][name].fill_(1e38)  # finite, but what comes of it is not
        checkpoint.save(content, broken / path.name)
    dataset = {**SET, "dataroot_gt": str(hr), "protocol": "bicubic"}
    if route == "lr set":
        run("x", {"test": dataset}, flags=["--save_lr", str(tmp_path / "lr")])
        dataset["dataroot_lq"] = str(tmp_path / "lr/X")
    if route == "own":
        dataset, metrics = OWN, NIQE
        if label == "t":
            run("y", {"test": dataset}, metrics, folder=broken)  # the oracle is left out
            return
    else:
        metrics = METRICS
    method = {"g": "Student", "t": r"Teacher \(oracle\)"}[label]
    with pytest.raises(UserError, match=rf"{method} on {dataset['name']} .*: the output is not finite"):
        run("y", {"test": dataset}, metrics, folder=broken)
    assert not (tmp_path / "results/y/report.md").exists()


@pytest.mark.parametrize("kind", ["hr", "own"])
def test_a_method_without_a_finite_output_is_named(kind):
    opt = {"name": "x", "scale": 4, "max_images": 1, "max_side": 56}
    hr = {**opt, "dataroot_gt": "bundled:test", "protocol": "bicubic", "kernel_size": 21}
    own = {**opt, "dataroot_lq": "bundled:test"}
    dataset = BenchmarkDataset(hr) if kind == "hr" else LQDataset(own)
    restorers = {
        "Bicubic": bicubic_restorer(4),
        "Broken": network_restorer(lambda lq: torch.full_like(lq, float("inf"))),
    }
    with pytest.raises(UserError, match=r"Broken on x chelsea\.png .*: the output is not finite"):
        next(evaluate(restorers, dataset, [], torch.device("cpu")))
