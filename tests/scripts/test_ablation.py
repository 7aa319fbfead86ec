from __future__ import annotations

import csv
import json
from copy import deepcopy
from pathlib import Path
from statistics import fmean, stdev
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mrda_data import BenchmarkDataset
from mrda_data.degradation.kernels import gaussian_kernel
from mrda_eval.evaluation import evaluate
from mrda_model import frozen
from mrda_model.restorers import network_restorer
from mrda_pipeline.chain import read_runs
from mrda_utils.errors import OptionError, UserError
from mrda_utils.yaml_text import parse_yaml
from scripts import ablation
from tests.model.conftest import ROOT, STAGES, shrunk, stage_options

PLAN = parse_yaml((ROOT / "options/ablation/ablation.yml").read_text(), "ablation.yml")


@pytest.fixture
def tiny(tmp_path):
    """Function that runs the shipped plan on two images at the smallest size; the folder of its tables."""
    options = tmp_path / "tiny"
    options.mkdir()
    changes = {"train__total_iter": 2, "train__scheduler__milestones": [], "logger__save_checkpoint_freq": 1}
    for stage in STAGES:
        opt = stage_options(stage, tmp_path / "experiments", **changes)
        (options / f"train_{stage}_x4.yml").write_text(yaml.safe_dump(opt))
    for stage in ("baseline", "kernel"):
        opt = shrunk(ROOT / f"options/ablation/train_{stage}_x4.yml")
        del opt["datasets"]["val"], opt["val"]
        opt["train"]["total_iter"] = 2
        opt["logger"] = {"save_checkpoint_freq": 1, "use_tb_logger": False}
        opt["path"] = {"experiments_root": str(tmp_path / "experiments")}
        (options / f"train_{stage}_x4.yml").write_text(yaml.safe_dump(opt))
    hr = tmp_path / "hr"
    hr.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(hr / f"{seed}.png")
    plan = {**PLAN, "test_sets": {"Tiny": str(hr), "Absent": str(tmp_path / "absent")}}
    (options / "plan.yml").write_text(yaml.safe_dump(plan, sort_keys=False))

    def run(*arguments: str) -> Path:
        ablation.main([*arguments, "--plan", str(options / "plan.yml"), "-o", str(tmp_path / "out")])
        return tmp_path / "out"

    return run


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_mean_and_spread_over_seeds_beside_the_papers_values(tiny, tmp_path):
    out = tiny("S3", "T1", "--seeds", "3", "4")
    trained = {path.name for path in (tmp_path / "experiments").glob("tiny_*")}
    runs = ("mln_bicubic", "mln_meta", "teacher", "student", "baseline")
    assert trained == {f"tiny_{run}_s{seed}" for run in runs for seed in (3, 4)}

    values = read_csv(out / "values.csv")
    assert [(v["row"], v["run"], v["seed"], v["dataset"]) for v in values] == [
        ("T1", "baseline", "3", "Tiny"),
        ("T1", "baseline", "4", "Tiny"),
        ("S3", "student", "3", "Tiny"),
        ("S3", "student", "4", "Tiny"),
    ]
    for value in values:  # the same weights by hand
        opt = parse_yaml(
            (tmp_path / f"experiments/tiny_{value['run']}_s{value['seed']}")
            .joinpath(f"tiny_{value['run']}_s{value['seed']}.yml")
            .read_text(),
            "",
        )
        assert opt["manual_seed"] == int(value["seed"])
        weights = tmp_path / f"experiments/{opt['name']}/models/net_g_latest.pth"
        net = frozen.build_frozen(opt["network_g"], str(weights), opt["model_type"], torch.device("cpu"))
        test_set = BenchmarkDataset(
            {"name": "x", "dataroot_gt": str(tmp_path / "hr"), "protocol": "gaussian8", "scale": 4, "kernel_size": 21}
        )
        found = evaluate({"x": network_restorer(net)}, test_set, ablation.PSNR, torch.device("cpu"))
        assert float(value["psnr"]) == pytest.approx(fmean(row.value for item in found for row in item.rows), abs=1e-6)

    cells = json.loads((out / "summary.json").read_text())
    for cell in cells:
        psnr = [float(value["psnr"]) for value in values if value["row"] == cell["row"]]
        assert (cell["mean"], cell["std"]) == pytest.approx((fmean(psnr), stdev(psnr)))
        assert cell["seeds"] == 2
    lines = (out / "tables.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["T1", "S3"]
    last = [text.strip() for text in lines[-1].split("|")]
    assert last[3:5] == [f"{cells[-1]['mean']:.2f} ± {cells[-1]['std']:.2f}", "25.90"]


def test_a_table_of_kernels_has_a_column_each_and_oracles_are_measured_as_such(tiny, tmp_path):
    out = tiny("T3", "T2-free")
    values = read_csv(out / "values.csv")
    assert [(v["table"], v["row"], v["column"]) for v in values] == [
        ("Table V", "T3", "PSNR"),
        *(("Table VI", "T2-free", width) for width in ("bicubic", "sigma1.20", "sigma2.40", "sigma3.60")),
    ]
    last = [text.strip() for text in (out / "tables.md").read_text().splitlines()[-1].split("|")]
    assert last[3:-1] == [*(f"{float(v['psnr']):.2f}" for v in values[1:]), "26.44", "26.42", "26.09", "25.22"]
    rows = read_csv(out / "rows/tiny_teacher_free_s0_Tiny_width.csv")
    assert float(values[1]["psnr"]) == pytest.approx(fmean(float(r["value"]) for r in rows if r["kernel"] == "bicubic"))

    opt = parse_yaml((out / "options/tiny_kernel_s0.yml").read_text(), "")
    weights = tmp_path / f"experiments/{opt['name']}/models/net_g_latest.pth"
    net = frozen.build_frozen(opt["network_g"], str(weights), opt["model_type"], torch.device("cpu"))
    test_set = BenchmarkDataset(
        {"name": "x", "dataroot_gt": str(tmp_path / "hr"), "protocol": "gaussian8", "scale": 4, "kernel_size": 21}
    )
    item = test_set[3]
    sigma = item["task"]["sigma_x"]
    sr = net(item["lq"][None], gaussian_kernel(sigma, sigma).float()[None])
    found = next(evaluate({"x": lambda item: sr}, Items([item]), ablation.PSNR, torch.device("cpu")))
    own = read_csv(out / "rows/tiny_kernel_s0_Tiny_gaussian8.csv")[3]
    assert float(own["value"]) == pytest.approx(found.rows[0].value, abs=1e-6)


class Items(list):
    """Items of a test set."""

    opt: ClassVar = {"name": "x", "scale": 4}


def test_a_complete_run_is_not_repeated_and_an_interrupted_one_goes_on(tiny, tmp_path, capsys):
    out = tiny("T1")
    run = tmp_path / "experiments/tiny_baseline_s0"
    before = (out / "values.csv").read_text()
    stamp = (run / "models/net_g_latest.pth").stat().st_mtime_ns
    capsys.readouterr()
    tiny("T1")
    assert "tiny_baseline_s0: complete" in capsys.readouterr().out
    assert (run / "models/net_g_latest.pth").stat().st_mtime_ns == stamp

    for path in ("training_states/2.state", "models/net_g_2.pth", "models/net_g_latest.pth"):
        (run / path).unlink()
    tiny("T1")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [(e["event"], e["iter"]) for e in events if e["event"] in ("start", "resume", "end")] == [
        ("start", 0),
        ("end", 2),
        ("resume", 1),
        ("end", 2),
    ]
    assert (out / "values.csv").read_text() == before


def test_rows_and_seeds_of_earlier_calls_stay_in_the_tables(tiny):
    tiny("T1", "--seeds", "0", "1")
    out = tiny("T3")
    tiny("T1", "--seeds", "1", "2")
    values = [(v["row"], v["seed"]) for v in read_csv(out / "values.csv")]
    assert values == [("T1", "0"), ("T1", "1"), ("T3", "0"), ("T1", "2")]
    assert [(cell["row"], cell["seeds"]) for cell in json.loads((out / "summary.json").read_text())] == [
        ("T1", 3),
        ("T3", 1),
    ]
    lines = (out / "tables.md").read_text().splitlines()
    assert "over 1 to 3 seed(s)" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["T1", "T3"]


def test_a_run_with_other_options_is_refused_and_kept(tiny, tmp_path):
    tiny("T1")
    with pytest.raises(UserError, match=r"tiny_baseline_s0\.yml: this run has other options"):
        tiny("T1", "--force_yml", "train:ema_decay=0.5")
    assert (tmp_path / "experiments/tiny_baseline_s0/models/net_g_latest.pth").is_file()


def test_new_weights_are_measured_again(tiny, tmp_path):
    out = tiny("T1")
    weights = tmp_path / "experiments/tiny_baseline_s0/models/net_g_latest.pth"
    content = torch.load(weights, weights_only=True)
    content["params_ema"]["rdan.upscaler.0.bias"] += 0.2
    torch.save(content, weights)
    before = read_csv(out / "values.csv")[0]["psnr"]
    assert read_csv(tiny("T1") / "values.csv")[0]["psnr"] != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["T9"], r"'T9' is no row, did you mean"),
        (["T1", "--options", "nowhere"], r"nowhere/train_baseline_x4\.yml: cannot be read .* run 'baseline' needs it"),
        (["T1", "--plan", "none.yml"], r"--plan none\.yml: cannot be read"),
        (["T1", "--force_yml", "train:totaliter=1"], r"run 'baseline': train: unknown key 'totaliter'"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_trained(arguments, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        ablation.main([*arguments, "-o", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan["runs"]["student"]["weights"].update(pretrain_network_t="techer"), "did you mean 'teacher'"),
        (lambda plan: plan["tables"]["Table V"]["rows"]["T1"].update(run="base"), "'base' is no run"),
        (lambda plan: plan["runs"]["student"].update(stages="x"), "unknown key 'stages', did you mean 'stage'"),
    ],
)
def test_a_mistake_in_the_plan_is_named(change, message, tmp_path):
    plan = deepcopy(PLAN)
    change(plan)
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(plan, sort_keys=False))
    with pytest.raises(OptionError, match=message):
        read_runs(tmp_path / "plan.yml", ablation.Plan, "--plan")


@pytest.mark.parametrize("folder", ["options/ablation", "options"])
def test_every_run_of_the_plan_has_valid_options_at_both_sizes(folder):
    plan = read_runs(ROOT / "options/ablation/ablation.yml", ablation.Plan, "--plan")
    names = set()
    for run in plan.runs:
        names.add(ablation.options_of(plan, run, ROOT / folder, 0, [])["name"])
    assert len(names) == len(plan.runs)
    labels = [label for table in plan.tables.values() for label in table.rows]
    assert len(set(labels)) == len(labels), "a label in two tables"
