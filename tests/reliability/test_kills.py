"""A training that is killed or signalled, wherever it happens to be, goes on and ends as if nothing had happened."""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import run_folder
from tests.reliability.conftest import options
from tests.reliability.processes import assert_nothing_lost, end, finish, output_file, start, wait_at_random

KINDS = ("mln_bicubic", "mln_meta", "teacher", "student", "teacher_gan")
SLOW = pytest.mark.slow


def disturb(opt, whole, times, faults, name, signals):
    """Have `times` runs of these options end before their time, each going on where the one before it was ended.

    A run that was quicker and came to its end is compared with the undisturbed one, and another begins.
    """
    draw, run, pending, ended = random.Random(name), run_folder(opt), 0, 0
    while ended < times:
        process = start(opt, "--auto_resume")
        wait_at_random(process, opt, whole.seconds, draw)
        send(process, *signals)
        assert end(process) != 2, output_file(opt).read_text()[-3000:]  # a run that refused
        if process.exitcode != 0:
            faults.injected(name)
            pending, ended = pending + 1, ended + 1
        if process.exitcode == 0 or ended == times:
            assert_nothing_lost(finish(opt, "--auto_resume"), whole.folder)
            faults.survived(name, pending)
            pending = 0
            shutil.rmtree(run)


def send(process, *signals):
    """Send signals to a process, one soon after the other, while it is there."""
    with suppress(ProcessLookupError):
        for number in signals:
            os.kill(process.pid, number)
            time.sleep(0.02)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "times"), [("student", 2), *(pytest.param(kind, 12, marks=SLOW, id=f"{kind} 12") for kind in KINDS)]
)
def test_kill_9_at_any_time_loses_nothing(chain, tmp_path, whole, faults, kind, times):
    opt = options(kind, chain, tmp_path / "runs")
    disturb(opt, whole(kind), times, faults, f"kill -9, {kind}", [signal.SIGKILL])


@SLOW
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "signals"),
    [("SIGTERM", [signal.SIGTERM]), ("Ctrl-C", [signal.SIGINT]), ("double Ctrl-C", [signal.SIGINT] * 2)],
)
def test_a_signal_at_any_time_loses_nothing(chain, tmp_path, whole, faults, name, signals):
    opt = options("student", chain, tmp_path / "runs")
    disturb(opt, whole("student"), 10, faults, name, signals)
    if len(signals) == 1:  # the second may come while torch ends the loader's workers, which says so
        assert "Traceback" not in output_file(opt).read_text()


def die_at(number: int) -> None:
    """Kill this process just before its `number`-th operation on the files of a run; torch.save is done by half."""
    count = itertools.count(1)

    def watched(operation: Callable) -> Callable:
        def call(*args, **kwargs):
            if next(count) == number:
                if operation is save:
                    content = io.BytesIO()
                    save(args[0], content)
                    args[1].write(content.getbuffer()[: len(content.getbuffer()) // 2])
                    args[1].flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return call

    save = torch.save
    torch.save, os.fsync = watched(save), watched(os.fsync)
    Path.replace, Path.unlink = watched(Path.replace), watched(Path.unlink)


@pytest.mark.parametrize(
    ("kind", "every"),
    [("student", 17), *(pytest.param(kind, 1, marks=SLOW, id=f"{kind} all") for kind in ("student", "teacher_gan"))],
)
@pytest.mark.timeout(1800)
def test_death_between_any_two_operations_on_files_loses_nothing(chain, tmp_path, faults, kind, every):
    """Half of the weights written, not flushed, not renamed, without their state, half of the old files deleted ..."""
    opt = options(kind, chain, tmp_path / "runs", train__total_iter=4)
    opt["datasets"]["train"]["num_worker_per_gpu"] = 0
    whole = shutil.copytree(finish(opt), tmp_path / "whole")
    for number in itertools.count(every, every):
        shutil.rmtree(run_folder(opt))
        if end(start(opt, prepare=partial(die_at, number))) == 0:
            break  # there are fewer operations than that
        with faults.fault(f"kill -9 between two file operations, {kind}"):
            assert_nothing_lost(finish(opt, "--auto_resume"), whole)
    assert number > 30


def test_last_weights_that_a_kill_left_out_are_written_by_the_next_run(chain, tmp_path):
    opt = options("teacher_gan", chain, tmp_path / "runs", train__total_iter=4)
    whole = shutil.copytree(finish(opt), tmp_path / "whole")
    for label in ("g", "d"):  # in the order that they are written in
        (run_folder(opt) / f"models/net_{label}_latest.pth").unlink()
        assert_nothing_lost(finish(opt, "--auto_resume"), whole)
