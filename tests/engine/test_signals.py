from __future__ import annotations

import signal
import time

import pytest

from tests.engine.conftest import end, events, run_folder, same_weights, start
from tests.model.conftest import stage_options, train


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_a_signal_saves_and_ends_and_the_run_goes_on_bit_for_bit(experiments, tmp_path, number, workers):
    cut = {"path__experiments_root": str(tmp_path / "cut"), "datasets__train__num_worker_per_gpu": workers}
    opt = stage_options("student", experiments, train__total_iter=100000, **cut)
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


def test_a_second_ctrl_c_ends_at_once(experiments, tmp_path):
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = stage_options("mln_bicubic", experiments, path__experiments_root=str(tmp_path), datasets__val=val)
    opt["val"] = {"val_freq": 4, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    opt["train"]["total_iter"] = 100000
    process = start(opt)  # saved at 3, validates whole photographs after 4
    process.send_signal(signal.SIGINT)
    code, stderr = end(process, signal.SIGINT)
    assert code in (130, -signal.SIGINT)
    assert "Traceback" not in stderr
    assert not list(run_folder(opt).rglob("*.tmp"))


def test_a_signal_during_validation_ends_it_and_the_resumed_run_validates_first(experiments, tmp_path):
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = stage_options("mln_bicubic", experiments, path__experiments_root=str(tmp_path), datasets__val=val)
    opt["val"] = {"val_freq": 4, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    process = start(opt)
    time.sleep(0.5)
    code, _ = end(process, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    stop = events(run_folder(opt))[-1]
    assert (stop["event"], stop["iter"]) == ("stop", 4)
    assert not any(event["event"] == "validation" for event in events(run_folder(opt)))
    opt["datasets"]["val"].update(max_images=1, max_side=48)
    train(opt, "--auto_resume")
    assert [e["iter"] for e in events(run_folder(opt)) if e["event"] == "validation"] == [4, 6]
