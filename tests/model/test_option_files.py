"""Every shipped option file runs, on the weights that the files before it leave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs import build_network

import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_options import read_options
from mrda_options.command_line import _check_consistency
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_pipeline.train_pipeline import train_pipeline
from tests.model.conftest import ROOT, STAGES, shrunk

OPTIONS = ROOT / "options"
STUDENTS = sorted(OPTIONS.rglob("train_student_x?.yml"))
TESTS = sorted(OPTIONS.rglob("test_*.yml"))
SHIPPED_MLN = re.compile(r"pretrain_network_mln: shipped:")
SMALL_SET = {"max_images": 1, "max_side": 48}


def name(path: Path) -> str:
    return path.relative_to(OPTIONS).as_posix()


def weights_of(opt: dict) -> str:
    return f"experiments/{opt['name']}/models/net_g_latest.pth"


def run(pipeline, opt: dict, root: Path) -> None:
    """Run shrunk options; their relative paths start at `root`."""
    (root / "o.yml").write_text(yaml.safe_dump(opt))
    pipeline(root, ["-opt", str(root / "o.yml")])


def run_test_file(path: Path, root: Path) -> str:
    """Run a test's option file on the bundled photographs; return the report."""
    opt = shrunk(path)
    for dataset in opt["datasets"].values():
        dataset["max_images"] = 1
        if dataset["type"] != "PairedDataset":
            side = 4 * 56 if "niqe" in opt["val"]["metrics"] else 48  # NIQE needs so many
            dataset["max_side"] = side // 4 if dataset["type"] == "LQDataset" else side
    run(run_test, opt, root)
    return (root / f"results/{opt['name']}/report.md").read_text()


def stage_files(student: Path) -> list[Path]:
    """The files of a setting in their order; not every one has stages for comparison and adversarial ones."""
    stages = ("baseline", "kernel", *STAGES, "teacher_gan", "student_gan")
    found = {stage: student.with_name(student.name.replace("student", stage)) for stage in stages}
    own = [s for s in STAGES if not (s.startswith("mln") and SHIPPED_MLN.search(_text(found["teacher"])))]
    return [path for stage, path in found.items() if path.exists() or stage in own]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("student", STUDENTS, ids=name)
def test_the_stages_and_the_test_of_a_setting_run_one_after_the_other(student, tmp_path):
    for path in stage_files(student):
        opt = shrunk(path)
        for key in ("perceptual_opt", "percep_gt_usm"):  # needs VGG's weights
            opt["train"].pop(key, None)
        opt["val"]["metrics"].pop("lpips", None)  # and this AlexNet's
        opt["datasets"]["val"].update(SMALL_SET)
        opt["train"]["total_iter"] = opt["val"]["val_freq"] = 2
        opt["logger"] = {"print_freq": 2, "use_tb_logger": False}
        for key, weights in opt.get("path", {}).items():
            if weights.startswith("shipped:"):  # weights of this size instead
                network = key.removeprefix("pretrain_").removeprefix("finetune_")
                opt["path"][key] = str(tmp_path / f"{network}.pth")
                torch.save({"params": build_network(opt[network]).state_dict()}, opt["path"][key])
        run(train_pipeline, opt, tmp_path)
        assert (tmp_path / weights_of(opt)).is_file()
        log = next((tmp_path / "experiments" / opt["name"]).glob("*.log")).read_text()
        assert "iter:       2" in log
        assert "psnr" in log
    for path in TESTS:
        test = shrunk(path)
        if test.get("path", {}).get("pretrain_network_g") == weights_of(opt):
            rows = r"Bicubic .*Student .*Teacher \(oracle\) " if "network_t" in test else r"Bicubic .*Student "
            assert re.search(rows, run_test_file(path, tmp_path), re.DOTALL)


def test_a_test_without_networks_runs(tmp_path):
    assert "Bicubic" in run_test_file(OPTIONS / "test_bicubic.yml", tmp_path)


def test_every_option_file_is_part_of_a_setting():
    settings = {path: stage_files(path) for path in STUDENTS}
    assert {path for files in settings.values() for path in files} == set(OPTIONS.rglob("train_*.yml"))
    students = {weights_of(shrunk(files[-1])) for files in settings.values()}
    tested = {shrunk(path).get("path", {}).get("pretrain_network_g") for path in TESTS}
    seeds = {weights.replace("_x4/", "_s0/") for weights in students}  # trained by scripts/ablation.py
    assert tested - {None, "shipped:mrda_lite_x4_student", "shipped:mrda_lite_x4_photo"} <= students | seeds


@pytest.mark.parametrize(
    ("file", "methods", "side", "gain"),
    [
        ("gaussian8", 4, 96, 1),
        ("photo", 4, 208, 0.1),  # NIQE takes no less
        ("width", 3, 96, 1),
        ("lq", 2, 96, None),  # no ground truth
    ],
)
def test_the_shipped_networks_fit_their_tests_and_gain_on_bicubic_upsampling(tmp_path, file, methods, side, gain):
    smaller = [f"datasets:test_photos:{key}={value}" for key, value in (("max_images", 1), ("max_side", side))]
    run_test(tmp_path, ["-opt", str(OPTIONS / f"test_{file}.yml"), "--force_yml", "device=cpu", *smaller])
    found = json.loads((tmp_path / f"results/test_{file}/metrics.json").read_text())["means"]
    assert len({row["method"] for row in found}) == methods
    if gain is not None:
        bicubic, *ours = [row["value"] for row in found if row["metric"] == "psnr"]
        assert min(ours) > bicubic + gain


@pytest.mark.parametrize("path", [*OPTIONS.rglob("train_*.yml"), *TESTS], ids=name)
def test_at_full_size_the_networks_can_be_built_and_fit_each_other(path):
    opt, _ = read_options(path, path.name.startswith("train"), [])  # builds each of them on the meta device
    _check_consistency(opt)
    for section, network in opt.items():
        if section.startswith("network_"):
            assert network.get("upscale", opt["scale"]) == opt["scale"]


SIGMA = {2: "[0.2, 2.0]", 3: "[0.2, 3.0]", 4: "[0.2, 4.0]"}  # paper Sec. IV-A; x3 is not in it
WIDTHS = {2: "0.8 to 1.6", 3: "1.35 to 2.4", 4: "1.8 to 3.2"}


def rescaled(text: str, scale: int) -> str:
    """A file for x4 as it must read for another scale."""
    for old, new in (
        ("_x4", f"_x{scale}"),
        ("x4:", f"x{scale}:"),
        (WIDTHS[4], WIDTHS[scale]),
        ("scale: 4", f"scale: {scale}"),
        ("gt_size: 256 ", f"gt_size: {64 * scale} "),
        (f"sigma: {SIGMA[4]}", f"sigma: {SIGMA[scale]}"),
        ("crop_border: 4", f"crop_border: {scale}"),
    ):
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_settings_of_other_scales_differ_in_the_scale_alone(stage, scale):
    found = (OPTIONS / f"train_{stage}_x{scale}.yml").read_text().replace(" (x3 is not in the paper)", "")
    assert found == rescaled((OPTIONS / f"train_{stage}_x4.yml").read_text(), scale)


@pytest.mark.parametrize("scale", [2, 3])
def test_tests_of_other_scales_differ_in_the_scale_alone(scale):
    expected = rescaled((OPTIONS / "test_gaussian8_x4.yml").read_text(), scale)
    assert (OPTIONS / f"test_gaussian8_x{scale}.yml").read_text() == expected


@pytest.mark.parametrize("stage", STAGES)
def test_the_anisotropic_setting_differs_in_name_degradation_and_paths_alone(stage):
    isotropic, _ = read_options(OPTIONS / f"train_{stage}_x4.yml", True, [])
    anisotropic, _ = read_options(OPTIONS / f"aniso/train_{stage}_x4.yml", True, [])
    if stage != "mln_bicubic":
        assert anisotropic["degradation"] == {
            "type": "anisotropic",
            "sigma_x": [0.2, 4.0],
            "sigma_y": [0.2, 4.0],
            "noise_sigma_255": [0.0, 25.0],
            "kernel_size": 21,
        }
        isotropic["degradation"] = anisotropic["degradation"]
    isotropic["name"] = isotropic["name"].replace("train_", "aniso_")
    isotropic["path"] = {key: value.replace("/train_", "/aniso_") for key, value in isotropic["path"].items()}
    assert anisotropic == isotropic
