"""train.py and test.py as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model.conftest import STAGES

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "options/demo"


def run(*command, cwd=ROOT):
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's own option files, all of them, with 2 iterations a stage and small crops."""
    root = tmp_path_factory.mktemp("demo")
    os.environ["OMP_NUM_THREADS"] = "1"
    small = [f"path:experiments_root={root}/experiments", "train:total_iter=2", "datasets:train:gt_size=48"]
    paths = {
        name: f"path:pretrain_network_{name}={root}/experiments/demo_{stage}_x4/models/net_g_latest.pth"
        for name, stage in (("mln", "mln_meta"), ("t", "teacher"), ("g", "student"))
    }
    bicubic = f"path:pretrain_network_g={root}/experiments/demo_mln_bicubic_x4/models/net_g_latest.pth"
    needs = {"mln_bicubic": [], "mln_meta": [bicubic], "teacher": [paths["mln"]], "student": [paths["mln"], paths["t"]]}
    for stage in STAGES:
        forced = [*small, *needs[stage], "datasets:val:max_images=1", "datasets:val:max_side=48", "val:val_freq=2"]
        done = run(ROOT / "train.py", "-opt", DEMO / f"train_{stage}_x4.yml", "--force_yml", *forced, cwd=root)
        assert done.returncode == 0, done.stderr[-3000:]
    forced = [
        f"path:results_root={root}/results",
        *paths.values(),
        "datasets:test:max_images=1",
        "datasets:test:max_side=64",
    ]
    done = run(ROOT / "test.py", "-opt", DEMO / "test_gaussian8_x4.yml", "--force_yml", *forced, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done


def test_the_demo_ends_with_its_table_and_says_where_the_report_lies(demo):
    root, done = demo
    for row in ("Bicubic", "Student", "Teacher (oracle)"):
        assert row in done.stdout
    assert f"report:   {root}/results/demo_gaussian8_x4/report.md" in done.stdout


def test_the_report_is_complete(demo):
    results = demo[0] / "results/demo_gaussian8_x4"
    rows = list(csv.DictReader((results / "metrics.csv").open()))
    assert len(rows) == 8 * 3 * 2  # kernels, methods, metrics
    content = json.loads((results / "metrics.json").read_text())
    for mean in content["means"]:
        values = [float(r["value"]) for r in rows if all(r[k] == mean[k] for k in ("dataset", "method", "metric"))]
        assert mean["value"] == pytest.approx(sum(values) / len(values))
    assert set(content["weights_sha256"]) == {"pretrain_network_g", "pretrain_network_t", "pretrain_network_mln"}
    report = (results / "report.md").read_text()
    assert "Teacher (oracle): its MLN adapts on the ground truth" in report
    pictures = [line.split("(")[1].rstrip(")") for line in report.splitlines() if line.startswith("![")]
    assert len(pictures) == 4
    assert all((results / picture).is_file() for picture in pictures)


def test_a_run_keeps_its_option_file_and_command(demo):
    text = (demo[0] / "experiments/demo_teacher_x4/demo_teacher_x4.yml").read_text()
    assert "train:total_iter=2" in text.splitlines()[1]
    assert (DEMO / "train_teacher_x4.yml").read_text() in text


def test_the_kept_option_file_starts_the_run_again(demo, tmp_path):
    kept = demo[0] / "experiments/demo_mln_bicubic_x4/demo_mln_bicubic_x4.yml"
    done = run(
        ROOT / "train.py",
        "-opt",
        kept,
        "--auto_resume",
        "--force_yml",
        "train:total_iter=3",
        f"path:experiments_root={demo[0]}/experiments",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "iterations 3 to 3" in done.stderr


def test_debug_prefixes_the_name_and_logs_every_iteration(tmp_path):
    done = run(
        ROOT / "train.py",
        "-opt",
        DEMO / "train_mln_bicubic_x4.yml",
        "--debug",
        "--force_yml",
        f"path:experiments_root={tmp_path}",
        "train:total_iter=2",
        "datasets:train:gt_size=48",
        "datasets:val:max_side=48",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "debug_demo_mln_bicubic_x4/models/net_g_latest.pth").is_file()
    assert done.stderr.count("l_pix") == 2


MISTAKES = {
    "unknown key": (["train:totl_iter=3"], "train: unknown key 'totl_iter', did you mean 'total_iter'?"),
    "missing checkpoint": (
        ["path:pretrain_network_mln=experiments/demo_mln_meta_x4/models/net_g_7.pth"],
        "run 'python train.py -opt options/demo/train_mln_meta_x4.yml' first",
    ),
    "missing images": (["datasets:train:dataroot_gt=nowhere"], "datasets.train.dataroot_gt: "),
    "missing lmdb": (["datasets:train:dataroot_gt=nowhere.lmdb"], "scripts/prepare_data.py --lmdb makes it"),
    "scale": (["scale=2", "datasets:train:gt_size=48"], "network_g.upscale: 4, but scale is 2"),
    "channels": (["network_mln:num_feat=99"], "network_g.den_in_ch: 24, but it reads MLN's num_feat 99 channels"),
    "no cuda": (["device=cuda"], "torch sees no CUDA device"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_without_traceback_and_leaves_nothing(demo, tmp_path, mistake):
    if mistake == "no cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    entries, message = MISTAKES[mistake]
    mln = f"path:pretrain_network_mln={demo[0]}/experiments/demo_mln_meta_x4/models/net_g_latest.pth"
    done = run(
        ROOT / "train.py",
        "-opt",
        DEMO / "train_teacher_x4.yml",
        "--force_yml",
        f"path:experiments_root={tmp_path}/e",
        mln,
        *entries,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "e").exists()


def test_without_weights_test_py_says_which_command_makes_them(tmp_path):
    missing = f"path:pretrain_network_g={tmp_path}/experiments/train_student_x4/models/net_g_latest.pth"
    done = run(ROOT / "test.py", "-opt", ROOT / "options/test_gaussian8_x4.yml", "--force_yml", missing)
    assert done.returncode == 2
    assert "run 'python train.py -opt options/train_student_x4.yml' first" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_benchmark_folders_are_one_line_each(demo, tmp_path):
    forced = [
        f"path:results_root={tmp_path}",
        "datasets:test:max_images=1",
        "datasets:test:max_side=48",
        *(
            f"path:pretrain_network_{name}={demo[0]}/experiments/demo_{stage}_x4/models/net_g_latest.pth"
            for name, stage in (("mln", "mln_meta"), ("t", "teacher"), ("g", "student"))
        ),
        "datasets:test_set5={name: Set5, type: BenchmarkDataset, dataroot_gt: nowhere/Set5, protocol: gaussian8}",
    ]
    done = run(ROOT / "test.py", "-opt", DEMO / "test_gaussian8_x4.yml", "--force_yml", *forced)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Set5: left out; put its images into {ROOT}/nowhere/Set5" in done.stdout
