"""A full disk ends a run in one line that names the file; nothing is lost, and it goes on when there is space again."""

from __future__ import annotations

import json
import logging
import random
import re
import resource
import shutil
import subprocess
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import torch

from mrda_eval import report
from mrda_pipeline.curves import Curves
from mrda_pipeline.events import record
from mrda_pipeline.log_file import LogFile
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from mrda_utils.files import append_line, write_text
from tests.engine.conftest import events, run_folder
from tests.model.conftest import ROOT, shrunk
from tests.reliability.conftest import options
from tests.reliability.processes import assert_nothing_lost, end, finish, output_file, start, wait_at_random

# TensorBoard's thread says so, too
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
LIMIT = 16384  # bytes
FULL = r"cannot be written \((File too large|No space left on device)\)"


def limit(size: int) -> None:
    """Let this process write no file beyond `size` bytes: what a full disk is to it, without a disk to fill."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def limited(size):
    try:
        limit(size)
        yield
    finally:
        limit(resource.RLIM_INFINITY)


ROWS = [("Set5", f"{number}.png", "1.0", "Student", "psnr", 30.0) for number in range(100)]
WRITERS = {
    "weights": lambda path: checkpoint.save({"a": torch.zeros(100000)}, path),
    "many small tensors": lambda path: checkpoint.save({"a": [torch.zeros(10) for _ in range(100)]}, path),
    "text": lambda path: write_text("x" * 5000, path),
    "csv": lambda path: report.write_csv(ROWS, ("a", "b", "c", "d", "e", "f"), path),
    "json": lambda path: report.write_json({(*row[:2], "psnr"): 30.0 for row in ROWS}, {}, "x", "0", {}, path),
    "markdown": lambda path: report.write_markdown("x" * 5000, [], [], path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_finds_no_room_is_named_and_the_old_one_stays(tmp_path, faults, writer):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with faults.fault("full disk, writing a checkpoint or a report"):
        with limited(1000), pytest.raises(UserError, match=rf"{path}: {FULL}"):
            WRITERS[writer](path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
        WRITERS[writer](path)
        assert path.stat().st_size > 1000


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "events.jsonl"
    append_line("a" * 600, path)
    with limited(1000), pytest.raises(UserError, match=rf"events\.jsonl: {FULL}"):
        append_line("b" * 600, path)
    assert path.read_text() == "a" * 600 + "\n"
    append_line("c", path)
    assert path.read_text() == "a" * 600 + "\nc\n"


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event": "start"}\n{"event": "sa')
    record(tmp_path, "resume", 4)
    assert [event["event"] for event in events(tmp_path)] == ["start", "resume"]


def test_events_and_means_that_are_infinite_are_valid_json(tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    record(tmp_path, "validation", 4, psnr=float("inf"), ssim=1.0)
    event = json.loads((tmp_path / "events.jsonl").read_text(), parse_constant=refuse)
    assert (event["psnr"], event["ssim"]) == ("inf", 1.0)
    means = {("Set5", "Student", "psnr"): float("inf"), ("Set5", "Student", "ssim"): 1.0}
    report.write_json(means, {}, "x", "0", {}, tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert [mean["value"] for mean in content["means"]] == ["inf", 1.0]


def test_a_log_that_finds_no_room_ends_the_run(tmp_path, faults):
    handler = LogFile(tmp_path / "x.log")
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.info("a")
    with faults.fault("full disk, logging"):
        with limited(1000), pytest.raises(UserError, match=rf"x\.log: {FULL}"):
            logger.info("b" * 2000)
        handler.close()


def test_a_curve_that_finds_no_room_ends_the_run(tmp_path, faults):
    curves = Curves(tmp_path / "tb_logger", 0)
    with faults.fault("full disk, TensorBoard"), limited(1000), pytest.raises(UserError, match=rf"tb_logger: {FULL}"):
        curves.add({f"curve {i}": 0.5 for i in range(100)}, 1)


def test_curves_have_each_point_once_though_the_run_was_killed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, last in ((0, 7), (4, 9)):  # killed after 7, gone on with from 4
        curves = Curves(tmp_path, first)
        for iteration in range(first + 1, last + 1):
            curves.add({"l_pix": float(iteration)}, iteration)
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("l_pix")
    assert [(point.step, point.value) for point in found] == [(i, float(i)) for i in range(1, 10)]


class Limit:
    """A full disk by the process's own limit, which its checkpoints exceed, but not what it says."""

    name = "full disk (limit)"

    def __init__(self, tmp_path):
        self.root = tmp_path / "runs"

    def fill(self, process):
        with suppress(ProcessLookupError):  # it was quicker
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))

    def empty(self):
        pass


class SmallDisk:
    """A full disk by files that fill a small one, made in memory."""

    name = "full disk (8 MiB)"

    def __init__(self, tmp_path):
        self.root = tmp_path / "disk"
        self.root.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.root], capture_output=True)
        if made.returncode:
            pytest.skip("may not mount a disk")

    def fill(self, process):
        with suppress(OSError), (self.root / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))

    def empty(self):
        (self.root / "ballast").unlink()


@pytest.fixture(params=[Limit, SmallDisk])
def disk(request, tmp_path):
    disk = request.param(tmp_path)
    yield disk
    if isinstance(disk, SmallDisk):
        subprocess.run(["umount", disk.root], check=True)


@pytest.mark.parametrize(("panels", "file"), [(1, r"panels/.*\.png"), (0, r"metrics\.csv")])
def test_a_report_that_finds_no_room_is_named_and_written_when_there_is(chain, tmp_path, faults, panels, file):
    opt = shrunk(ROOT / "options/demo/test_gaussian8_x4.yml")
    opt.update(panels=panels, path={"results_root": str(tmp_path / "results")})
    opt["datasets"]["test"].update(max_images=1, max_side=48)
    for label, stage in (("mln", "mln_meta"), ("t", "teacher"), ("g", "student")):
        opt["path"][f"pretrain_network_{label}"] = str(chain / f"demo_{stage}_x4/models/net_g_latest.pth")
    folder = tmp_path / "results" / opt["name"]
    with faults.fault("full disk, test.py"):
        assert end(start(opt, prepare=partial(limit, 2000))) == 2
        last = output_file(opt).read_text().splitlines()[-1]
        assert re.fullmatch(rf"error: {folder}/{file}: {FULL}", last)
        # the copy of the options, which is small, says whose folder it is
        assert {path.name for path in folder.rglob("*") if path.is_file()} <= {f"{opt['name']}.yml"}
        assert end(start(opt)) == 0
        assert {"report.md", "metrics.csv", "metrics.json"} <= {path.name for path in folder.iterdir()}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_disk_that_gets_full_at_any_time_loses_nothing(chain, tmp_path, whole, faults, disk, times):
    opt = options("student", chain, disk.root)
    draw, done = random.Random(times), 0
    while done < times:
        process = start(opt)
        wait_at_random(process, opt, whole("student").seconds / 2, draw)
        disk.fill(process)
        code = end(process)
        disk.empty()
        if code != 0:  # else it came to its end before
            with faults.fault(disk.name):
                assert code == 2
                last = output_file(opt).read_text().splitlines()[-1]
                assert re.fullmatch(rf"error: {run_folder(opt)}/\S+: {FULL}", last)
                assert_nothing_lost(finish(opt, "--auto_resume"), whole("student").folder)
            done += 1
        shutil.rmtree(run_folder(opt))
        output_file(opt).unlink()
