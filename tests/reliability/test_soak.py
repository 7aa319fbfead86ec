"""Memory, file descriptors and processes of a long training stay level."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from basicsr.archs import build_network

import mrda_arch  # noqa: F401
from mrda_model.weights import Provenance, save_network
from mrda_utils.yaml_text import parse_yaml
from tests.engine.conftest import alive, command, events, run_folder
from tests.model.conftest import ROOT

WARM_UP = 0.3  # of the time: caches fill, the allocator finds its size
PERIOD = 2  # seconds from sample to sample
MIB = 2**20


class Sample(NamedTuple):
    """What /proc tells of a training and the workers of its loader."""

    minute: float
    memory: float
    """Resident, MiB, what they share counted several times."""
    descriptors: int
    workers: int
    zombies: int


def sample(pid: int, started: float) -> Sample:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children]
    pages = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in (pid, *children)]
    memory = 4096 * sum(pages) / MIB
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample((time.monotonic() - started) / 60, memory, descriptors, len(children), states.count("Z"))


def demo_student(folder: Path) -> dict:
    """The demo's student at its full size, on a teacher and an MLN that know nothing yet."""
    opt = parse_yaml((ROOT / "options/demo/train_student_x4.yml").read_text(), "demo")
    for label, network, stage in (("mln", "network_mln", "MLNMetaModel"), ("t", "network_t", "MRDATeacherModel")):
        path = folder / f"{label}.pth"
        net = build_network(opt[network])
        save_network({"params": net}, Provenance(stage, 4, None), 1, path)
        opt["path"][f"pretrain_network_{label}"] = str(path)
    opt["path"]["experiments_root"] = str(folder / "experiments")
    opt["datasets"]["train"]["num_worker_per_gpu"] = 2
    opt["train"]["total_iter"] = 10**6
    opt["val"].update(val_freq=50, save_best="psnr")
    opt["logger"].update(print_freq=10, save_checkpoint_freq=50, keep_last=2, use_tb_logger=True)
    return opt


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_long_training_stays_level(tmp_path, request, record_property, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    minutes = request.config.getoption("--soak-minutes")
    torch.manual_seed(0)
    opt = demo_student(tmp_path)
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command(opt), stdout=output, stderr=output, start_new_session=True)
    while not any(event["event"] == "save" for event in events(run_folder(opt))):
        assert process.poll() is None, (tmp_path / "output").read_text()
        time.sleep(1)
    started, samples = time.monotonic(), []
    while not samples or samples[-1].minute < minutes:
        samples.append(sample(process.pid, started))
        time.sleep(PERIOD)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM
    assert alive(process) == []

    level = [s for s in samples if s.minute > WARM_UP * minutes]
    growth = np.polyfit([s.minute for s in level], [s.memory for s in level], 1)[0]
    half = len(level) // 2
    # the least of them: while a file is written there is one more
    before, after = (min(s.descriptors for s in part) for part in (level[:half], level[half:]))
    validations = [event["iter"] for event in events(run_folder(opt)) if event["event"] == "validation"]
    record_property(
        "soak",
        f"{minutes:g} minutes, {validations[-1]} iterations, {len(validations)} validations: memory "
        f"{level[0].memory:.0f} MiB, later {level[-1].memory:.0f} MiB, {growth:+.2f} MiB a minute; file descriptors "
        f"{before}, later {after}; zombies {max(s.zombies for s in samples)}",
    )
    assert growth < 1
    assert after <= before
    assert {(s.workers, s.zombies) for s in samples} == {(2, 0)}
