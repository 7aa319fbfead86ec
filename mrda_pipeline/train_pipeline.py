"""From an option file to a running training: lock, resume, folder, log."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from filelock import FileLock, Timeout
from torch.utils.data import Dataset

from mrda_model.frozen import degradation_name
from mrda_options.command_line import Run, dump, parse
from mrda_pipeline.conditions import (
    changes,
    check_agreement,
    conditions,
    file_digest,
    images_digest,
    refuse_other_training,
)
from mrda_pipeline.events import record
from mrda_pipeline.launch import launch, processes_to_start
from mrda_pipeline.signals import noted_signals
from mrda_pipeline.training_loop import TrainingLoop
from mrda_pipeline.workers import lost_workers_named
from mrda_utils import __version__, checkpoint
from mrda_utils.distributed import contact_lost_ends, on_rank_0, stop
from mrda_utils.errors import UserError
from mrda_utils.files import refusal_named, write_text


class _LogFile(logging.FileHandler):
    """A log file that cannot be written ends the run like any other file; logging itself would go on without it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return super().handleError(record)
        with refusal_named(Path(self.baseFilename)):
            raise error

    def close(self) -> None:
        with suppress(OSError):  # it comes again for the lines that found no room
            super().close()


@contextmanager
def run_logger(run: Run, log_file: Path) -> Iterator[logging.Logger]:
    """BasicSR's logger, writing to this run's file as well (its own file handler is set once a process)."""
    logger = get_root_logger()
    handler = None
    if run.process.rank == 0:
        with refusal_named(log_file):
            handler = _LogFile(log_file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        logger.handlers[0].setLevel(logging.INFO)  # BasicSR's, for the console
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield logger
    finally:
        if handler:
            logger.removeHandler(handler)
            handler.close()


def _lock(run: Run, stack: ExitStack) -> None:
    """Take this run's name until `stack` closes; the kernel gives it back when the process ends, however it ends."""
    folder = Path(run.opt["path"]["run"])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"name: '{run.opt['name']}' is being trained in {folder} by another process; choose another name, or wait"
        ) from error
    except OSError as error:
        raise UserError(f"path.experiments_root: {folder.parent} cannot be written ({error})") from error
    stack.callback(lock.release)


def _check_data(run: Run, train_set: Dataset, val_sets: list[Dataset]) -> None:
    """Raise UserError unless all processes have the same options and images, and all of them can be used."""
    if run.process.world_size > 1:
        images = {f"images of {val_set.opt['name']}": images_digest(val_set) for val_set in val_sets}
        own = {"options": run.options_sha256, "training images": images_digest(train_set), **images}
        check_agreement(own, run.process.rank)
    for val_set in val_sets:
        if val_set.left_out:
            raise UserError("\n  ".join([f"{val_set.opt['name']}: images that cannot be used:", *val_set.left_out]))


def _check_weights(run: Run, state_path: Path | None) -> None:
    """Raise UserError unless all processes read the same state, weights and frozen networks."""
    if run.process.world_size == 1:
        return
    files = {f"path.{key}": path for key, path in run.opt["path"].items() if key.startswith("pretrain_network")}
    if state_path:
        labels = ("g", "d") if "network_d" in run.opt else ("g",)
        stored = [state_path, *(checkpoint.network_of_state(state_path, label) for label in labels)]
        files |= {str(path): path for path in stored}
    check_agreement({what: file_digest(path) for what, path in files.items()}, run.process.rank)


def _archive(folder: Path) -> None:
    """Move an earlier run of this name aside; nothing of it is lost."""
    stamp = time.strftime("%Y%m%d_%H%M%S")
    target, n = folder.with_name(f"{folder.name}_archived_{stamp}"), 1
    while target.exists():
        target, n = folder.with_name(f"{folder.name}_archived_{stamp}_{n}"), n + 1
    folder.rename(target)
    print(f"{folder} exists; moved to {target}")  # noqa: T201  (the log file does not exist yet)


class _Start(NamedTuple):
    """Where a run begins."""

    path: Path | None
    state: dict | None
    damaged: list[str]
    """What is wrong with newer states, which are passed over."""


def _find_state(run: Run) -> _Start:
    """With --auto_resume, this run's newest state that can be read, weights included; else `path.resume_state`."""
    damaged = []
    for path in checkpoint.states(Path(run.opt["path"]["training_states"])) if run.auto_resume else []:
        try:
            state = checkpoint.load_state(path)
            for label in ("g", "d") if "network_d" in run.opt else ("g",):
                checkpoint.load(checkpoint.network_of_state(path, label))
        except checkpoint.CheckpointError as error:
            damaged.append(str(error))
            print(f"warning: {error}; looking for an earlier state")  # noqa: T201
        else:
            return _Start(path, state, damaged)
    if "resume_state" in run.opt["path"]:
        path = Path(run.opt["path"]["resume_state"])
        return _Start(path, checkpoint.load_state(path), damaged)
    if damaged:
        raise checkpoint.CheckpointError(
            f"--auto_resume: no checkpoint of {run.opt['path']['run']} can be used; {damaged[0]}; mend or delete them, "
            "or start without --auto_resume, which moves the run aside and begins anew"
        )
    return _Start(None, None, damaged)


def _is_finished(opt: dict, state: dict, state_path: Path) -> bool:
    """Whether nothing is left to do for this run, not even a validation or its last weights."""
    total, latest = opt["train"]["total_iter"], Path(opt["path"]["models"]) / "net_g_latest.pth"
    own = state_path.parent == Path(opt["path"]["training_states"])
    validated = len(opt["datasets"]) == 1 or state["validated_iter"] == total
    provenance = checkpoint.Provenance(opt["model_type"], opt["scale"], degradation_name(opt["degradation"]))
    if state["mrda"] != provenance._asdict():
        return False  # of another training, which is refused
    if not own or not validated or state["iter"] < total or not latest.is_file():
        return False
    return checkpoint.load(latest)["mrda"]["iteration"] == total


def _abandon_newer_states(folder: Path, iteration: int) -> None:
    """Rename states beyond `iteration`: the run goes on from there, and they are damaged or of another course."""
    for path in checkpoint.states(folder):
        if int(path.stem) > iteration:
            path.replace(path.with_name(f"{path.name}.abandoned"))


def _prepare_folder(run: Run, state_path: Path | None, first_step: int) -> None:
    """Make the run's folder; an earlier run that is not gone on with is moved aside."""
    folder = Path(run.opt["path"]["run"])
    try:
        found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
        found -= {entry.name for entry in folder.glob(".*.tmp")}  # of a process that was killed
        if found and not found & {f"{run.opt['name']}.yml", "events.jsonl", "training_states"}:
            raise UserError(f"path.experiments_root: {folder} holds other things than a training; choose another name")
        for left_over in folder.rglob(".*.tmp"):
            left_over.unlink()
        if found and (state_path is None or state_path.parent.parent.resolve() != folder.resolve()):
            _archive(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _abandon_newer_states(folder / "training_states", first_step)
    except OSError as error:
        raise UserError(f"path.experiments_root: {folder} cannot be written ({error})") from error
    write_text(run.option_text, folder / f"{run.opt['name']}.yml")


def train_pipeline(root: Path, argv: list[str] | None = None, sharing: int = 1) -> None:
    """Run one stage from its option file: exactly `total_iter` iterations, resumed ones included.

    Args:
        root: folder of train.py.
        argv: command line; None for the process's own.
        sharing: processes that `num_processes` has started, this one included; they share out the tasks of a step.

    Raises:
        UserError: a mistake in options, data or checkpoints.
    """
    run = parse(root, argv, is_train=True)
    if sharing == 1 and (count := processes_to_start(run.opt, run.process.device)) > 1:
        return launch(count, train_pipeline, root, argv)
    run.opt["datasets"]["train"]["tasks_per_gpu"] //= sharing
    try:
        with contact_lost_ends(), ExitStack() as stack:
            _train(run, stack, sharing)
    finally:
        stop()


def _train(run: Run, stack: ExitStack, sharing: int) -> None:
    opt, process = run.opt, run.process
    get_root_logger().setLevel(logging.INFO if process.rank == 0 else logging.ERROR)
    on_rank_0(lambda: _lock(run, stack))
    train_set = build_dataset(opt["datasets"]["train"])
    val_sets = [build_dataset(dataset) for phase, dataset in opt["datasets"].items() if phase != "train"]
    _check_data(run, train_set, val_sets)
    state_path, state, damaged = on_rank_0(lambda: _find_state(run))
    _check_weights(run, state_path)
    own = conditions(run, train_set)
    changed = changes(state.get("conditions"), own) if state else []
    if not run.resume_changed:
        refuse_other_training(changed, state_path)
    first_step = state["iter"] if state else 0
    if first_step > opt["train"]["total_iter"]:
        raise UserError(f"train.total_iter: {opt['train']['total_iter']}, but {state_path} is beyond it")
    if run.auto_resume and state and on_rank_0(lambda: _is_finished(opt, state, state_path)):
        if process.rank == 0:
            print(f"{opt['name']}: already finished, {first_step} iterations; a higher train.total_iter goes on")  # noqa: T201
        return
    torch.manual_seed(opt["manual_seed"])  # initial weights; every later draw has a seed of its own
    model = build_model(opt)
    model.conditions = own
    if state is not None:
        model.resume_training(state, state_path, run.resume_changed)
    for val_set in val_sets:
        for metric in model.metrics:
            metric.check_sizes(val_set.sizes, val_set.opt["name"])
    # nothing is written or moved before everything has been read
    on_rank_0(lambda: _prepare_folder(run, state_path, first_step))

    folder = Path(opt["path"]["run"])
    log_file = folder / f"train_{opt['name']}_{time.strftime('%Y%m%d_%H%M%S')}.log"
    with run_logger(run, log_file) as logger:
        versions = f"mrda {__version__}, torch {torch.__version__}"
        threads = torch.get_num_threads()
        logger.info("%s, %s, %d process(es) of %d thread(s)", versions, process.device, process.world_size, threads)
        if opt["num_processes"] != 1 and sharing == 1 and "WORLD_SIZE" in os.environ:
            logger.info("num_processes: %s is not used, a launcher has started the processes", opt["num_processes"])
        logger.debug("Options:\n%s", dump(opt))  # for the file: the console shows what changes
        if process.rank == 0:
            for reason in damaged:
                record(folder, "fallback", first_step, reason=reason)
            record(folder, "resume" if state else "start", first_step, state=str(state_path) if state else None)
            for change in changed:
                record(folder, "changed", first_step, **change._asdict())
        if state is not None:
            logger.info("Resuming from %s", state_path)
        for change in changed:
            logger.warning("%s: from here on the run is another one than it would have been", change)
        loop = TrainingLoop(opt, process, model, train_set, val_sets, logger)
        with noted_signals(), lost_workers_named():
            loop.run(first_step)
