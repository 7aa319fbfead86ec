"""From an option file to a running training: lock, resume, folder, log."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from torch.utils.data import Dataset

from mrda_model.base_model import StageModel
from mrda_options.command_line import Run, dump, parse
from mrda_pipeline.conditions import (
    Change,
    changes,
    check_agreement,
    conditions,
    file_digest,
    images_digest,
    refuse_other_training,
)
from mrda_pipeline.events import record
from mrda_pipeline.launch import allowed_cores, launch, processes_to_start
from mrda_pipeline.log_file import run_logger
from mrda_pipeline.process_group import contact_lost_ends, stop
from mrda_pipeline.run_folder import lock, prepare_folder
from mrda_pipeline.signals import noted_signals
from mrda_pipeline.start_state import StartState, find_start, is_finished, weights_of_state
from mrda_pipeline.training_loop import TrainingLoop
from mrda_pipeline.workers import lost_workers_named
from mrda_utils import __version__
from mrda_utils.distributed import on_rank_0
from mrda_utils.errors import UserError


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
        files |= {str(path): path for path in (state_path, *weights_of_state(run, state_path))}
    check_agreement({what: file_digest(path) for what, path in files.items()}, run.process.rank)


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
    on_rank_0(lambda: lock(run, stack))
    train_set = build_dataset(opt["datasets"]["train"])
    val_sets = [build_dataset(dataset) for phase, dataset in opt["datasets"].items() if phase != "train"]
    _check_data(run, train_set, val_sets)
    start = on_rank_0(lambda: find_start(run))
    _check_weights(run, start.path)
    own = conditions(run, train_set)
    changed = _changes(run, start, own)
    if run.auto_resume and on_rank_0(lambda: is_finished(opt, start)):
        if process.rank == 0:
            print(f"{opt['name']}: already finished, {start.iteration} iterations; a higher train.total_iter goes on")  # noqa: T201
        return
    model = _model(run, start, own)
    for val_set, metric in product(val_sets, model.metrics):
        metric.check_sizes(val_set.sizes, val_set.opt["name"])
    # nothing is written or moved before everything has been read
    on_rank_0(lambda: prepare_folder(run, start))

    log_file = Path(opt["path"]["run"]) / f"train_{opt['name']}_{time.strftime('%Y%m%d_%H%M%S')}.log"
    with run_logger(log_file, process.rank == 0) as logger, noted_signals(), lost_workers_named():
        _log_start(run, start, changed, logger, sharing)
        TrainingLoop(opt, process, model, train_set, val_sets, logger).run(start.iteration)


def _changes(run: Run, start: StartState, own: dict[str, str]) -> list[Change]:
    """What differs from the run that wrote the state.

    Raises:
        UserError: so much that it is another training, or one that has less to do.
    """
    changed = changes(start.state.get("conditions"), own) if start.state else []
    if not run.resume_changed:
        refuse_other_training(changed, start.path)
    total = run.opt["train"]["total_iter"]
    if start.iteration > total:
        raise UserError(f"train.total_iter: {total}, but {start.path} is beyond it")
    return changed


def _model(run: Run, start: StartState, own: dict[str, str]) -> StageModel:
    """The stage, as it begins or as the state has it."""
    torch.manual_seed(run.opt["manual_seed"])  # initial weights; every later draw has a seed of its own
    model = build_model(run.opt)
    model.conditions = own
    if start.state is not None:
        model.resume_training(start.state, start.path, run.resume_changed)
    return model


def _log_start(run: Run, start: StartState, changed: list[Change], logger: logging.Logger, sharing: int) -> None:
    """Log and record what trains here, and what it resumes from."""
    opt, process = run.opt, run.process
    versions, threads = f"mrda {__version__}, torch {torch.__version__}", torch.get_num_threads()
    logger.info("%s, %s, %d process(es) of %d thread(s)", versions, process.device, process.world_size, threads)
    launcher = sharing == 1 and "WORLD_SIZE" in os.environ
    if opt["num_processes"] != 1 and launcher:
        logger.info("num_processes: %s is not used, a launcher has started the processes", opt["num_processes"])
    used, allowed, limit = sharing * threads, allowed_cores(), os.environ.get("OMP_NUM_THREADS")
    if process.device.type == "cpu" and not launcher and limit and used < allowed:
        logger.info("OMP_NUM_THREADS is %s: trains on %d of the %d cores that there are", limit, used, allowed)
    logger.debug("Options:\n%s", dump(opt))  # for the file: the console shows what changes
    if start.state:
        logger.info("Resuming from %s", start.path)
    for change in changed:
        logger.warning("%s: from here on the run is another one than it would have been", change)
    if process.rank == 0:
        folder, kind = Path(opt["path"]["run"]), "resume" if start.state else "start"
        for reason in start.damaged:
            record(folder, "fallback", start.iteration, reason=reason)
        record(folder, kind, start.iteration, state=str(start.path) if start.path else None)
        for change in changed:
            record(folder, "changed", start.iteration, **change._asdict())
