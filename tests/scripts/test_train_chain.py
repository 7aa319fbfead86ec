from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mrda_pipeline.chain import Chain, read_runs, run_options
from mrda_utils.errors import OptionError, UserError
from mrda_utils.yaml_text import parse_yaml
from scripts import train_chain
from tests.model.conftest import ROOT, STAGES, stage_options

CHAINS = sorted((ROOT / "options").rglob("chain.yml"))


@pytest.fixture
def tiny(tmp_path):
    """Function that runs the demo's chain at the smallest size; the folder of its trainings."""
    folder = tmp_path / "options"
    folder.mkdir()
    shutil.copy(ROOT / "options/demo/chain.yml", folder)
    for stage in STAGES:
        opt = stage_options(stage, tmp_path / "experiments", train__total_iter=2, logger__save_checkpoint_freq=1)
        (folder / f"train_{stage}_x4.yml").write_text(yaml.safe_dump(opt))

    def run(*arguments: str):
        train_chain.main(["-opt", str(folder / "chain.yml"), *arguments])
        return tmp_path / "experiments"

    return run


def events(run):
    lines = (run / "events.jsonl").read_text().splitlines()
    return [(e["event"], e["iter"]) for e in map(json.loads, lines) if e["event"] in ("start", "resume", "end")]


def test_one_command_trains_all_stages_on_ones_own_photographs_and_says_where_the_student_is(tiny, tmp_path, capsys):
    photos = tmp_path / "my photos"
    photos.mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{seed}.png")
    experiments = tiny("--data", os.path.relpath(photos), "--name", "mine")  # from where the user is
    student = experiments / "mine_student_x4/models/net_g_latest.pth"
    assert f"student: {student}\n" in capsys.readouterr().out
    trained = {path.name for path in experiments.glob("mine_*_x4")}
    assert trained == {f"mine_{stage}_x4" for stage in STAGES}
    for stage in STAGES:
        folder = experiments / f"mine_{stage}_x4"
        opt = parse_yaml((folder / f"{folder.name}.yml").read_text(), "")
        assert opt["datasets"]["train"]["dataroot_gt"] == str(photos)
        assert events(folder) == [("start", 0), ("end", 2)]
    # the student's RDAN started from this chain's teacher: two small steps away from it
    rdans = [
        {n: w.float() for n, w in torch.load(path, weights_only=True)["params"].items() if n.startswith("rdan.")}
        for path in (student, experiments / "mine_teacher_x4/models/net_g_latest.pth")
    ]
    assert max((rdans[0][name] - rdans[1][name]).abs().max() for name in rdans[0]) < 0.01


def test_the_same_command_goes_on_and_leaves_complete_stages_alone(tiny, capsys):
    experiments = tiny()
    teacher, student = (experiments / f"demo_{stage}_x4" for stage in ("teacher", "student"))
    for path in ("training_states/2.state", "models/net_g_2.pth", "models/net_g_latest.pth"):
        (student / path).unlink()
    before = (teacher / "models/net_g_latest.pth").stat().st_mtime_ns
    capsys.readouterr()
    tiny()
    assert events(student) == [("start", 0), ("end", 2), ("resume", 1), ("end", 2)]
    assert (teacher / "models/net_g_latest.pth").stat().st_mtime_ns == before
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith(": complete")] == [
        f"demo_{stage}_x4: complete" for stage in STAGES[:3]
    ]


def test_a_chain_with_other_options_is_refused_by_the_key_that_differs(tiny):
    experiments = tiny()
    with pytest.raises(UserError, match=r"other options .*\(train\.ema_decay: 0\.99, now 0\.5\); choose another name"):
        tiny("--force_yml", "train:ema_decay=0.5")
    assert (experiments / "demo_student_x4/models/net_g_latest.pth").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--name", "a b"], "name: 'a b_mln_bicubic_x4'"),
        (["--force_yml", "train:totaliter=1"], "run 'mln_bicubic': train: unknown key 'totaliter'"),
        (["-opt", "none.yml"], r"-opt none\.yml: cannot be read"),
        (["-opt", str(ROOT / "options/ablation/ablation.yml")], "unknown key 'test_sets'"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_trained(tiny, arguments, message, tmp_path):
    with pytest.raises(OptionError, match=message) as error:
        tiny(*arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "experiments").exists()


def test_several_processes_of_torchrun_are_sent_to_train_py(tiny, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"take train\.py"):
        tiny()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"pretrain_network_g": "student"}, "'student' must be listed above 'mln_meta'"),
        ({"pretrain_network_g": "mln_bicubc"}, "'mln_bicubc' is no run, did you mean 'mln_bicubic'"),
    ],
)
def test_a_run_takes_weights_of_earlier_ones(weights, message, tmp_path):
    chain = parse_yaml((ROOT / "options/demo/chain.yml").read_text(), "")
    chain["runs"]["mln_meta"]["weights"] = weights
    (tmp_path / "chain.yml").write_text(yaml.safe_dump(chain, sort_keys=False))
    with pytest.raises(OptionError, match=message):
        read_runs(tmp_path / "chain.yml", Chain, "-opt")


@pytest.mark.parametrize("path", CHAINS, ids=lambda path: path.parent.name)
def test_a_shipped_chain_is_its_folders_option_files_as_they_are(path):
    chain = read_runs(path, Chain, "-opt")
    for name, variant in chain.runs.items():
        file = path.with_name(f"train_{variant.stage}_x{chain.scale}.yml")
        found = run_options(name, variant, path.parent, chain.scale, lambda run: f"{chain.name}_{run}_x4", [])
        alone = parse_yaml(file.read_text(), "")
        assert found == {"path": {}, **alone}
