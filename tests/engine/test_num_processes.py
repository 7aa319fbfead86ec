"""train.py that starts processes by itself: the training of torchrun, the ends of a single process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mrda_options.options import OptionError, validate
from mrda_pipeline import launch, train_pipeline
from mrda_utils.errors import UserError
from tests.engine.conftest import ROOT, command, end, events, finish, run_folder, same_weights, start
from tests.model.conftest import stage_options, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def two(stage, chain, folder, **changes):
    """Options of a training as two processes."""
    return stage_options(stage, chain, path__experiments_root=str(folder), num_processes=2, **changes)


def ranks(process):
    """Process numbers of those that a training has started, in the order of their ranks."""
    children = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(number) for number in children.stdout.split()]


def gone(numbers):
    """Whether these processes end within ten seconds."""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("stage", ["mln_meta", "student"])
def test_the_training_is_that_of_torchrun_with_half_the_tasks_each(chain, tmp_path, stage):
    opt = two(stage, chain, tmp_path / "own")
    assert (opt["datasets"]["train"]["tasks_per_gpu"], opt["train"]["total_iter"]) == (2, 6)
    if stage == "student":  # resumed on the way
        finish({**opt, "train": {**opt["train"], "total_iter": 3}})
    finish(opt, "--auto_resume")
    theirs = two(stage, chain, tmp_path / "torchrun", datasets__train__tasks_per_gpu=1)
    finish(theirs, processes=2)
    assert same_weights(run_folder(opt), run_folder(theirs))
    log = max(run_folder(opt).glob("*.log")).read_text()
    assert ("Resuming from" in log) == (stage == "student")
    assert "2 process(es) of 1 thread(s)" in log
    assert "4 samples an iteration" in log
    assert "num_processes: 2 is not used" not in log
    assert "num_processes: 2 is not used" in next(run_folder(theirs).glob("*.log")).read_text()


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)])
def test_a_signal_saves_and_ends(chain, tmp_path, number, workers):
    opt = two("mln_bicubic", chain, tmp_path, train__total_iter=100000, datasets__train__num_worker_per_gpu=workers)
    process = start(opt)
    started = ranks(process)
    assert len(started) == 2
    code, stderr = end(process, number)
    assert code == 128 + number
    assert gone(started)
    last = events(run_folder(opt))[-1]
    assert (last["event"], last["signal"]) == ("stop", number.name)
    assert (run_folder(opt) / f"training_states/{last['iter']}.state").exists()
    assert "Traceback" not in stderr
    assert stderr.count("Ctrl-C again ends at once") == (number == signal.SIGINT)
    assert stderr.count(f"stopped by {number.name} at iteration {last['iter']}, which is saved; --auto_resume") == 1


def test_a_signal_before_the_training_ends_in_one_line(chain, tmp_path):
    opt = two("mln_bicubic", chain, tmp_path)
    process = subprocess.Popen(command(opt), stderr=subprocess.PIPE, text=True)
    while not (started := ranks(process)):  # they import for seconds
        assert process.poll() is None
        time.sleep(0.01)
    code, stderr = end(process, signal.SIGINT)
    assert code == 130
    assert stderr.splitlines()[-1] == "SIGINT before the training began"
    assert "Traceback" not in stderr
    assert gone(started)
    assert not run_folder(opt).exists()


def test_a_second_ctrl_c_ends_at_once(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SECONDS_PER_IMAGE", "30")
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = two("mln_bicubic", chain, tmp_path, datasets__val=val, train__total_iter=100000)
    opt["val"] = {"val_freq": 4, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    process = start(opt, script=ROOT / "tests/engine/slow_validation_train.py")
    while not (run_folder(opt) / "validating").exists():
        assert process.poll() is None
        time.sleep(0.02)
    started = ranks(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    code, stderr = end(process, signal.SIGINT)
    assert code == 130
    assert gone(started)
    assert "Traceback" not in stderr
    assert stderr.count("\ninterrupted; the last checkpoint is kept, --auto_resume goes on from it\n") == 1
    assert not (run_folder(opt) / "training_states/4.state").exists()


def test_a_killed_process_ends_the_others(chain, tmp_path):
    opt = two("student", chain, tmp_path, train__total_iter=100000)
    process = start(opt)
    started = ranks(process)
    os.kill(started[1], signal.SIGKILL)
    code, stderr = end(process)
    assert code == 2
    assert gone(started)
    assert "Traceback" not in stderr
    assert stderr.count("rank 0: another process has ended") == 1
    assert stderr.count("error: process 1 of 2 was ended by SIGKILL; --auto_resume goes on") == 1


def test_without_their_parent_they_save_and_end(chain, tmp_path):
    opt = two("mln_bicubic", chain, tmp_path, train__total_iter=100000)
    process = start(opt)
    started = ranks(process)
    process.kill()
    assert gone(started)
    last = events(run_folder(opt))[-1]
    assert (last["event"], last["signal"]) == ("stop", "SIGINT")


def test_a_mistake_is_told_once(chain, tmp_path):
    opt = two("mln_bicubic", chain, tmp_path)
    opt["path"]["resume_state"] = str(tmp_path / "1.state")
    (tmp_path / "1.state").write_bytes(b"damaged")  # rank 0 finds it
    done = subprocess.run(command(opt), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("1.state: damaged") == 1
    opt["path"]["resume_state"] = str(tmp_path / "2.state")  # is not there: found before processes are started
    done = subprocess.run(command(opt), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_training_that_goes_wrong_in_all_processes_is_told_once(chain, tmp_path):
    opt = two("mln_bicubic", chain, tmp_path, train__optim_g__lr=1e30, train__max_skipped=2)
    done = subprocess.run(command(opt), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("error: train.max_skipped: the last ") == 1


@pytest.mark.parametrize(
    ("cores", "tasks", "count"), [(1, 4, 1), (2, 4, 2), (3, 4, 2), (8, 4, 4), (2, 3, 1), (4, 3, 3), (64, 1, 1)]
)
def test_auto_takes_what_cores_and_tasks_allow(monkeypatch, cores, tasks, count):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(launch, "cores", lambda: cores)
    opt = {"num_processes": "auto", "datasets": {"train": {"tasks_per_gpu": tasks}}}
    assert launch.processes_to_start(opt, CPU) == count
    assert launch.processes_to_start(opt, CUDA) == 1
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launch.processes_to_start(opt, CPU) == 1


def test_a_number_that_cannot_be_is_refused(monkeypatch, chain):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    opt = {"num_processes": 2, "datasets": {"train": {"tasks_per_gpu": 3}}}
    with pytest.raises(UserError, match=r"2 processes cannot share datasets\.train\.tasks_per_gpu 3 evenly"):
        launch.processes_to_start(opt, CPU)
    with pytest.raises(UserError, match="num_processes: 2, but device is cuda; start torchrun"):
        launch.processes_to_start(opt, CUDA)
    for value in (0, "all", 1.5):
        with pytest.raises(OptionError, match=r"num_processes: ('all'|0|1\.5): Input should be"):
            validate(stage_options("student", chain, num_processes=value), True, "x.yml")


def test_a_container_that_may_use_one_core_of_many_has_one(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    for text, cores in (("150000 100000\n", 1), ("400000 100000\n", 4), ("50000 100000\n", 1), ("max 100000\n", 8)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert launch.cores() == cores


@pytest.mark.parametrize(
    ("limit", "allowed", "told"), [("1", 4, True), ("1", 1, False), (None, 4, False)], ids=["limited", "all", "unset"]
)
def test_cores_that_omp_num_threads_leaves_idle_are_told(chain, tmp_path, monkeypatch, limit, allowed, told):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if limit:
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
    monkeypatch.setattr(train_pipeline, "allowed_cores", lambda: allowed)
    run = train(stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), num_processes="auto"))
    line = f"OMP_NUM_THREADS is 1: trains on 1 of the {allowed} cores that there are"
    assert (line in next(run.glob("*.log")).read_text()) == told
