from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.engine.conftest import ROOT, alive, end, events, run_folder, same_weights, start
from tests.model.conftest import stage_options, train


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0), (signal.SIGHUP, 1)])
def test_a_signal_saves_and_ends_and_the_run_goes_on_bit_for_bit(chain, tmp_path, number, workers):
    cut = {"path__experiments_root": str(tmp_path / "cut"), "datasets__train__num_worker_per_gpu": workers}
    opt = stage_options("student", chain, train__total_iter=100000, **cut)
    process = start(opt)
    code, stderr = end(process, number)
    assert code == 128 + number
    last = events(run_folder(opt))[-1]
    assert (last["event"], last["signal"]) == ("stop", number.name)
    assert "Traceback" not in stderr
    assert stderr.endswith(
        f"\nstopped by {number.name} at iteration {last['iter']}, which is saved; --auto_resume goes on from it\n"
    )
    opt["train"]["total_iter"] = last["iter"] + 2
    run = train(opt, "--auto_resume")
    opt["path"]["experiments_root"] = str(tmp_path / "whole")
    assert same_weights(run, train(opt))


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.02)


def test_a_second_ctrl_c_ends_at_once(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), datasets__val=val)
    opt["val"] = {"val_freq": 4, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    opt["train"]["total_iter"] = 100000
    # a single Ctrl-C ends the validation after an image of half a minute: two must not wait for it, however busy it is
    monkeypatch.setenv("SECONDS_PER_IMAGE", "30")
    process = start(opt, script=ROOT / "tests/engine/slow_validation_train.py")
    wait_for(run_folder(opt) / "validating")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    code, stderr = end(process, signal.SIGINT)
    assert code in (130, -signal.SIGINT)
    assert "Traceback" not in stderr
    assert "Ctrl-C again ends at once" in stderr
    assert not list(run_folder(opt).rglob("*.tmp"))
    assert [event["event"] for event in events(run_folder(opt)) if event["event"] != "log"][-1] == "save"
    assert not (run_folder(opt) / "training_states/4.state").exists()


def test_a_worker_that_hangs_does_not_hold_up_the_second_ctrl_c(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), train__total_iter=100000)
    opt["datasets"]["train"]["num_worker_per_gpu"] = 2
    process = start(opt, script=ROOT / "tests/engine/hanging_train.py")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    code, _ = end(process, signal.SIGINT)
    assert code in (130, -signal.SIGINT)
    assert alive(process) == []


def test_a_signal_during_validation_ends_it_and_the_resumed_run_validates_first(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), datasets__val=val)
    opt["val"] = {"val_freq": 4, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    process = start(opt, script=ROOT / "tests/engine/slow_validation_train.py")
    wait_for(run_folder(opt) / "validating")
    code, _ = end(process, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    stop = events(run_folder(opt))[-1]
    assert (stop["event"], stop["iter"]) == ("stop", 4)
    assert not any(event["event"] == "validation" for event in events(run_folder(opt)))
    opt["datasets"]["val"].update(max_images=1, max_side=48)
    train(opt, "--auto_resume")
    assert [e["iter"] for e in events(run_folder(opt)) if e["event"] == "validation"] == [4, 6]


def test_a_second_ctrl_c_does_not_wait_for_workers_that_have_just_begun():
    """A worker notes SIGTERM, like its parent, until it has handlers of its own; Python's exit would wait for ever."""
    program = """
import multiprocessing, time
from mrda_pipeline.signals import noted_signals
with noted_signals():
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True).start()
    raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("KeyboardInterrupt\n")
