"""Several processes on the CPU cores of this machine, without torchrun: the option `num_processes`."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing import active_children, resource_tracker
from pathlib import Path

import torch
from torch.multiprocessing import ProcessExitedException, spawn

from mrda_pipeline.signals import SIGNALS, noted_signals, requested_by, stop_requested
from mrda_utils.errors import Stopped, UserError, run

POLL = 0.2  # seconds between two looks at the processes
GRACE = 30  # seconds in which the others notice that one has ended


def allowed_cores() -> int:
    """Cores that this process may use: its affinity's, within a container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
    except (OSError, ValueError):  # not in a container, or its quota is "max"
        return allowed
    return max(1, min(allowed, quota // period))


def cores() -> int:
    """Cores that a training takes: as many as torch has threads (OMP_NUM_THREADS), of those that it may use."""
    return min(torch.get_num_threads(), allowed_cores())


def processes_to_start(opt: dict, device: torch.device) -> int:
    """How many processes `num_processes` asks for; 1 where torchrun or Slurm have started this one.

    Raises:
        UserError: a number that does not share out the tasks of a step evenly, or more than one on CUDA or Windows.
    """
    wanted, tasks = opt["num_processes"], opt["datasets"]["train"]["tasks_per_gpu"]
    if "WORLD_SIZE" in os.environ:
        return 1
    if sys.platform == "win32":
        if wanted not in ("auto", 1):
            raise UserError(f"num_processes: {wanted}, but Windows does not start several; use 1")
        return 1
    if wanted == "auto":
        most = cores() if device.type == "cpu" else 1
        return max(count for count in range(1, min(most, tasks) + 1) if tasks % count == 0)
    if wanted > 1 and device.type != "cpu":
        raise UserError(f"num_processes: {wanted}, but device is {device.type}; start torchrun, or use auto")
    if tasks % wanted:
        raise UserError(
            f"num_processes: {wanted} processes cannot share datasets.train.tasks_per_gpu {tasks} evenly; use a "
            "divisor of it, or auto"
        )
    return wanted


def _one_of(rank: int, main: Callable[..., None], args: tuple, count: int, port: int, threads: int) -> None:
    """What each process does; a signal, from its parent alone, ends it until a training notes signals."""
    os.setsid()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank}
    address["LOCAL_WORLD_SIZE"] = count
    os.environ.update({name: str(value) for name, value in address.items()})
    torch.set_num_threads(threads)
    run(lambda: main(*args, count))


def launch(count: int, main: Callable[..., None], *args: object) -> None:
    """Run `main(*args, count)` as a group of `count` processes that share the cores, and wait for them.

    The first Ctrl-C, SIGTERM or SIGHUP is passed on to them, a second Ctrl-C kills them.

    Raises:
        SystemExit: with the exit code of a process that has said why.
        UserError: a process was killed.
        Stopped: a signal came before the training.
        KeyboardInterrupt: the second Ctrl-C.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with noted_signals():
        # signals wait while a process starts and imports, which inherits this; the tracker's start would undo it
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        group = spawn(_one_of, (main, args, count, port, max(1, cores() // count)), count, join=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        told = False
        try:
            while not group.join(POLL, GRACE):
                if stop_requested() and not told:
                    told = True
                    for process in active_children():
                        os.kill(process.pid, requested_by())
        except ProcessExitedException as error:
            if error.exit_code > 0:
                raise SystemExit(error.exit_code) from None
            if told and requested_by() == -error.exit_code:
                raise Stopped(f"{error.signal_name} before the training began", -error.exit_code + 128) from None
            raise UserError(
                f"process {error.error_index} of {count} was ended by {error.signal_name}; --auto_resume goes on from "
                "the last checkpoint"
            ) from None
