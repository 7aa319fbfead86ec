from __future__ import annotations

import csv
import os
import signal
import subprocess
import time

import pytest
import skimage
import torch
import yaml

from mrda_model import training_state
from mrda_utils import checkpoint
from tests.engine.conftest import ROOT, alive, command, end, events, finish, run_folder, same_weights, start
from tests.model.conftest import STAGES, stage_options, train


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one_with_two_accumulation_steps(chain, tmp_path, stage, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = {}
    for processes, steps in ((1, 2), (2, 1)):
        opt = stage_options(stage, chain, train__total_iter=5, train__accumulation_steps=steps)
        opt["datasets"]["train"]["tasks_per_gpu"] = 1
        opt["path"]["experiments_root"] = str(tmp_path / str(processes))
        finish(opt, processes=processes, script=ROOT / "tests/engine/float64_train.py")
        found[processes] = checkpoint.load(run_folder(opt) / "models/net_g_latest.pth")["params"]
    for name, tensor in found[1].items():
        assert tensor.dtype in (torch.float64, torch.bool)
        torch.testing.assert_close(found[2][name], tensor, rtol=0, atol=1e-9)


def test_a_test_shared_by_two_processes_writes_what_one_writes(chain, tmp_path):
    opt = yaml.safe_load((ROOT / "options/demo/test_gaussian8_x4.yml").read_text())
    opt["datasets"]["test"].update(max_images=1, max_side=48)
    for name, stage in (("mln", "mln_meta"), ("t", "teacher"), ("g", "student")):
        opt["path"][f"pretrain_network_{name}"] = str(chain / f"demo_{stage}_x4/models/net_g_latest.pth")
        shapes = stage_options(stage, chain)["network_g"]
        opt[f"network_{name}"] = shapes
    written = []
    for processes in (1, 2):
        opt["path"]["results_root"] = str(tmp_path / str(processes))
        finish(opt, processes=processes, script=ROOT / "test.py")
        folder = tmp_path / str(processes) / opt["name"]
        pictures = sorted(p.relative_to(folder) for p in folder.rglob("*.png"))
        untimed = [part for part in (folder / "report.md").read_text().split("\n\n") if "s / image |" not in part]
        written.append(((folder / "metrics.csv").read_bytes(), untimed, pictures))
        rows = list(csv.DictReader((folder / "metrics.csv").open()))
        assert len(rows) == 8 * 3 * 2  # kernels, methods, metrics
    assert written[0] == written[1]


def test_two_processes_resume_bit_for_bit_after_sigterm(chain, tmp_path):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path / "cut"), train__total_iter=10000)
    process = start(opt, processes=2)
    end(process, signal.SIGTERM)
    stopped = events(run_folder(opt))[-1]
    assert (stopped["event"], stopped["signal"]) == ("stop", "SIGTERM")
    assert alive(process) == []
    opt["train"]["total_iter"] = stopped["iter"] + 3
    finish(opt, "--auto_resume", processes=2)
    whole = {**opt, "path": {**opt["path"], "experiments_root": str(tmp_path / "whole")}}
    finish(whole, processes=2)
    assert same_weights(run_folder(opt), run_folder(whole))


def test_a_killed_rank_ends_the_run(chain, tmp_path):
    opt = stage_options("student", chain, path__experiments_root=str(tmp_path), train__total_iter=100000)
    opt["datasets"]["train"]["num_worker_per_gpu"] = 1
    process = start(opt, processes=2)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    subprocess.run(["kill", "-9", ranks[1]], check=True)
    killed = time.monotonic()
    code, stderr = end(process)
    assert code != 0
    assert time.monotonic() - killed < 60
    assert "rank 0: another process has ended" in stderr
    assert "--auto_resume goes on from the last checkpoint" in stderr
    deadline = time.monotonic() + 20
    while alive(process) and time.monotonic() < deadline:  # loader workers look for their parent every few seconds
        time.sleep(0.2)
    assert alive(process) == []


def test_two_processes_train_channels_last(chain, tmp_path):
    """Its buffers of one pixel would have strides that DDP refuses to broadcast."""
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), train__channels_last=True)
    opt["train"]["total_iter"] = 2
    finish(opt, processes=2)
    assert (run_folder(opt) / "models/net_g_latest.pth").is_file()


def test_a_mistake_on_rank_0_ends_every_rank_and_is_told_once(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    opt["path"]["resume_state"] = str(tmp_path / "1.state")
    (tmp_path / "1.state").write_bytes(b"damaged")
    done = subprocess.run(command(opt, processes=2), capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("1.state: damaged") == 1
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []


def test_processes_with_different_options_refuse_to_start(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29671", "WORLD_SIZE": "2"}
    ranks = []
    for rank, lr in enumerate((1e-3, 1e-2)):
        flags = ("--force_yml", f"train:optim_g:lr={lr}")
        environment = {**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(subprocess.Popen(command(opt, *flags), env=environment, stderr=subprocess.PIPE, text=True))
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert all("options differ between the processes" in error for error in errors)
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []


def test_an_image_that_a_worker_cannot_read_is_named_in_one_line(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    images = tmp_path / "images"
    images.mkdir()
    for n in range(3):
        skimage.io.imsave(images / f"{n}.png", skimage.data.astronaut()[:96, :96], check_contrast=False)
    opt["datasets"]["train"].update(dataroot_gt=str(images), num_worker_per_gpu=2)
    opt["train"]["total_iter"] = 100000
    process = start(opt)
    (images / "1.png").write_bytes(b"broken since")
    code, stderr = end(process)
    assert code == 2
    assert stderr.splitlines()[-1].startswith(f"error: {images}/1.png: cannot be decoded")
    assert "Traceback" not in stderr


def test_the_second_run_of_a_name_refuses(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), train__total_iter=100000)
    process = start(opt)
    done = subprocess.run(command(opt, "--auto_resume"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "name: 'demo_mln_bicubic_x4' is being trained" in done.stderr
    process.kill()
    process.communicate()
    states = training_state.states(run_folder(opt) / "training_states")
    opt["train"]["total_iter"] = int(states[0].stem) + 1
    train(opt, "--auto_resume")  # a lock left by a crash does not block
