"""What the machine around a run may lack or do: the run goes on, or ends in one line and can be resumed."""

from __future__ import annotations

import ctypes
import errno
import itertools
import multiprocessing
import os
import pwd
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import skimage
from torch.utils.data import DataLoader

from mrda_pipeline.workers import lost_workers_named
from mrda_utils import files
from mrda_utils.errors import UserError
from tests.engine.conftest import events, run_folder
from tests.model.conftest import ROOT, shrunk, stage_options
from tests.reliability.processes import end, finish, output_file, start, wait_for_a_save

NEW_MOUNTS = 0x20000  # CLONE_NEWNS


def mount_shared_memory(mode: str) -> None:
    """Give this process a /dev/shm of its own, 16 KiB or read-only."""
    assert ctypes.CDLL(None).unshare(NEW_MOUNTS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", mode, "tmpfs", "/dev/shm"], check=True)


def last_line(opt: dict) -> str:
    told = output_file(opt).read_text()
    assert "Traceback" not in told
    return told.splitlines()[-1].lstrip("\0")  # torch ends what it says of a worker's fault with a zero byte


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", ["size=16k", "ro"])
def test_shared_memory_that_is_too_small_or_read_only_is_one_line(chain, tmp_path, faults, mode):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("may not mount a disk")
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    opt["datasets"]["train"]["num_worker_per_gpu"] = 1
    with faults.fault(f"/dev/shm {mode}"):
        assert end(start(opt, prepare=partial(mount_shared_memory, mode))) == 2
        assert last_line(opt).startswith("error: ")
        assert "docker --shm-size" in last_line(opt)
        assert finish(opt, "--auto_resume") == run_folder(opt)


def workers(process) -> list[int]:
    """Loader processes of a training."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_loader_process_is_one_line_and_the_run_goes_on_from_its_checkpoint(chain, tmp_path, faults, number):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"), train__total_iter=100000)
    opt["datasets"]["train"]["num_worker_per_gpu"] = 2
    process = start(opt)
    wait_for_a_save(process, opt)
    with faults.fault(f"loader process ended by {number.name}"):
        os.kill(workers(process)[0], number)
        assert end(process) == 2
        assert last_line(opt).startswith("error: loader processes have ended or cannot work (")
        opt["train"]["total_iter"] = events(run_folder(opt))[-1]["iter"] + 1
        finish(opt, "--auto_resume")


def end_a_worker(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # and leave it to torch's handler
    time.sleep(0.01)  # in which the handler runs


def load(then: Callable[[int], None]) -> None:
    """Load a batch, and do something with the loader's process while its loader lives."""
    loader = iter(DataLoader(range(100), num_workers=1, multiprocessing_context="fork"))
    next(loader)
    then(multiprocessing.active_children()[0].pid)


def report(pid: int) -> None:
    raise UserError(f"known of {pid}")


@pytest.mark.timeout(60)
def test_a_loader_process_that_ends_after_the_error_raises_nothing_more():
    """A crash closes the pipes before the process has ended: the training knows of it, and is told a second time."""
    load(lambda pid: None)  # outside of a training: torch's handler is there before it
    for _ in range(2):  # the second training of a process is told of its own loader's
        with pytest.raises(UserError, match="known") as known, lost_workers_named():
            load(report)
        end_a_worker(int(str(known.value).split()[-1]))
        with pytest.raises(UserError, match="killed by signal"), lost_workers_named():
            load(end_a_worker)


def no_reader() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)


def full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def closed() -> None:
    os.close(1)


@pytest.mark.parametrize("prepare", [no_reader, full, closed])
def test_a_test_that_nobody_reads_writes_its_report(chain, tmp_path, faults, prepare):
    opt = shrunk(ROOT / "options/demo/test_gaussian8_x4.yml")
    opt.update(panels=0, path={"results_root": str(tmp_path / "results")})
    for section in ("network_g", "network_t", "network_mln", "adaptation"):
        del opt[section]
    opt["datasets"]["test"].update(max_images=1, max_side=48)
    with faults.fault(f"standard output {prepare.__name__}"):
        assert (end(start(opt, prepare=prepare)) == 2) == (prepare == full)
        assert (tmp_path / "results" / opt["name"] / "metrics.csv").is_file()
        told = output_file(opt).read_text()
        assert "Traceback" not in told
        assert "Exception ignored" not in told
        full_line = "error: standard output cannot be written (No space left on device)\n"
        assert told.endswith(full_line) == (prepare == full)


@pytest.mark.parametrize("closing", [">&-", "<&-", "2>&-", ">&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_programs_start_without_standard_files(closing, tmp_path):
    program = f"""
from mrda_utils.errors import run, UserError
def main():
    print("x")
    open({str(tmp_path / "a")!r}, "w").write("a")
    raise UserError("b")
run(main)
"""
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "a").read_text() == "a"


def without_home(cache: str | None) -> None:
    def nobody(_: object) -> None:
        raise KeyError("uid not found")

    pwd.getpwuid = pwd.getpwnam = nobody
    os.environ.pop("HOME", None)
    os.environ.pop("XDG_CACHE_HOME", None)
    if cache:
        os.environ["XDG_CACHE_HOME"] = cache


@pytest.fixture
def images(tmp_path) -> Path:
    """Folder of three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        skimage.io.imsave(folder / f"{n}.png", skimage.data.astronaut()[:96, :96], check_contrast=False)
    return folder


@pytest.mark.parametrize("cache", [True, False])
def test_a_user_without_home_and_name_trains(chain, tmp_path, faults, images, cache):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    opt["datasets"]["train"]["dataroot_gt"] = str(images)
    cache = str(tmp_path / "own cache") if cache else None
    with faults.fault("no HOME and no name"):
        assert end(start(opt, prepare=partial(without_home, cache))) == 0, output_file(opt).read_text()
        assert bool(list((tmp_path / "own cache").rglob("*.json"))) == bool(cache)


def refuse_to_flush_folders(number: int) -> None:
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    os.fsync = fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_does_not_flush_folders_is_trained_on(chain, tmp_path, faults, number):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    with faults.fault("folders cannot be flushed"):
        assert end(start(opt, prepare=partial(refuse_to_flush_folders, number))) == 0, output_file(opt).read_text()


def stop_clocks() -> None:
    now, monotonic = time.time(), time.monotonic()
    time.time, time.monotonic, time.perf_counter = lambda: now, lambda: monotonic, lambda: monotonic


def jumping_clock() -> None:
    start, jump = time.time(), itertools.cycle([0, 10**9, -(10**9), -1, 3600])
    time.time = lambda: start + next(jump)


@pytest.mark.parametrize("clock", [stop_clocks, jumping_clock])
def test_no_clock_ends_a_training(chain, tmp_path, faults, clock):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    opt["logger"].update(print_freq=1, use_tb_logger=True)
    with faults.fault(clock.__name__.replace("_", " ")):
        assert end(start(opt, prepare=clock)) == 0, output_file(opt).read_text()
        assert [event["event"] for event in events(run_folder(opt))][-1] == "end"


def few_descriptors(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@pytest.mark.parametrize(
    "count", [20, 28, *(pytest.param(n, marks=pytest.mark.slow) for n in (16, 18, 22, 24, 26, 32))]
)
def test_few_descriptors_are_enough_or_one_line(chain, tmp_path, faults, count):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    opt["datasets"]["train"]["num_worker_per_gpu"] = 2
    with faults.fault("few file descriptors"):
        if end(start(opt, prepare=partial(few_descriptors, count))) == 0:
            return
        assert last_line(opt).startswith("error: "), output_file(opt).read_text()
        finish(opt, "--auto_resume")


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("prepare", [None, ignore_hangup])
def test_a_closed_terminal_saves_and_ends_but_not_under_nohup(chain, tmp_path, faults, prepare):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"), train__total_iter=200)
    process = start(opt, prepare=prepare)
    wait_for_a_save(process, opt)
    with faults.fault("SIGHUP under nohup" if prepare else "SIGHUP"):
        os.kill(process.pid, signal.SIGHUP)
        assert end(process) == (0 if prepare else 128 + signal.SIGHUP)
        last = events(run_folder(opt))[-1]
        assert last["event"] == ("end" if prepare else "stop")
        assert prepare or last["signal"] == "SIGHUP"
        finish(opt, "--auto_resume")


def smaller(path: Path) -> None:
    skimage.io.imsave(path, skimage.data.astronaut()[:40, :40], check_contrast=False)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("skip_corrupt", [False, True])
@pytest.mark.parametrize("change", [smaller, Path.unlink])
def test_an_image_that_shrinks_or_goes_is_one_line_or_skipped(chain, tmp_path, images, change, skip_corrupt, workers):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"), train__total_iter=100000)
    opt["datasets"]["train"].update(dataroot_gt=str(images), skip_corrupt=skip_corrupt, num_worker_per_gpu=workers)
    process = start(opt)
    wait_for_a_save(process, opt)
    change(images / "1.png")
    if not skip_corrupt:
        assert end(process) == 2
        assert last_line(opt).startswith("error: ")
        assert "1.png: " in last_line(opt)
        return
    deadline = time.monotonic() + 60
    while "1 lost in this process" not in output_file(opt).read_text():
        assert time.monotonic() < deadline
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    assert end(process) == 128 + signal.SIGTERM


def test_a_validation_image_that_shrinks_is_one_line(chain, tmp_path, images):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"), train__total_iter=100000)
    opt["datasets"]["val"] = {
        "name": "V", "type": "BenchmarkDataset", "dataroot_gt": str(images), "protocol": "bicubic"
    }  # fmt: skip
    opt["val"] = {"val_freq": 3, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    process = start(opt)
    wait_for_a_save(process, opt)
    skimage.io.imsave(images / "1.png", skimage.data.astronaut()[:8, :8], check_contrast=False)
    assert end(process) == 2
    assert last_line(opt).startswith("error: V: 1.png has 8x8 pixels, fewer than at the start")


@pytest.mark.parametrize(
    "text",
    [
        '{"0.png": 3}', '{"0.png": [1, 2]}', '{"0.png": [[STAMP], ["a", null]]}', '{"0.png": [[STAMP], [-5, 3]]}', "[]",
        '{"0.png": [[STAMP], [3]]}', '{"0.png": [[STAMP], 7]}', "[" * 100_000, "\x00",
        '{"0.png": [[STAMP], [1e400, 2]]}',
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_scan_cache_of_other_things_is_none(images, text):
    from mrda_data.sources import FolderSource, check_source

    source = FolderSource(images)
    sizes = check_source(source, 48)
    (cache,) = files.user_cache().glob("scan-*.json")
    cache.write_text(text.replace("STAMP", ", ".join(map(str, source.stamps()["0.png"]))))
    assert check_source(source, 48) == sizes
