"""The training loop: BasicSR's registries and log lines, with checkpoints, resume and iteration count of our own."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.utils import AvgTimer, MessageLogger, get_root_logger
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mrda_utils import __version__, checkpoint
from mrda_utils.command_line import Run, dump, parse
from mrda_utils.distributed import broadcast_object, stop
from mrda_utils.errors import UserError
from mrda_utils.sampler import StepSampler


@contextmanager
def run_logger(run: Run, log_file: Path) -> Iterator[logging.Logger]:
    """BasicSR's logger, writing to this run's file as well (its own file handler is set once a process)."""
    logger = get_root_logger()
    handler = None
    if run.process.rank == 0:
        handler = logging.FileHandler(log_file, encoding="utf-8")
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


def _archive(folder: Path) -> None:
    """Move an earlier run of this name aside; nothing of it is lost."""
    stamp = time.strftime("%Y%m%d_%H%M%S")
    target, n = folder.with_name(f"{folder.name}_archived_{stamp}"), 1
    while target.exists():
        target, n = folder.with_name(f"{folder.name}_archived_{stamp}_{n}"), n + 1
    folder.rename(target)
    print(f"{folder} exists; moved to {target}")  # noqa: T201  (the log file does not exist yet)


def _find_state(run: Run) -> tuple[Path, dict] | None:
    """With --auto_resume, this run's newest state that can be read, weights included; else `path.resume_state`.

    Damaged states are named and passed over.
    """
    own = checkpoint.states(Path(run.opt["path"]["training_states"])) if run.auto_resume else []
    for path in own:
        try:
            state = checkpoint.load_state(path)
            checkpoint.load(checkpoint.network_of_state(path, "g"))
        except checkpoint.CheckpointError as error:
            print(f"warning: {error}; looking for an earlier state")  # noqa: T201
        else:
            return path, state
    if "resume_state" in run.opt["path"]:
        path = Path(run.opt["path"]["resume_state"])
        return path, checkpoint.load_state(path)
    return None


def _prepare_folder(run: Run, state_path: Path | None) -> None:
    """Make the run's folder; an earlier run that is not gone on with is moved aside."""
    folder = Path(run.opt["path"]["run"])
    try:
        if folder.exists() and (state_path is None or state_path.parent.parent.resolve() != folder.resolve()):
            _archive(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{run.opt['name']}.yml").write_text(run.option_text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"path.experiments_root: {folder} cannot be written ({error})") from error


def _loader(run: Run, dataset: Dataset, first_step: int) -> DataLoader:
    opt = run.opt["datasets"]["train"]
    batch = opt["tasks_per_gpu"] * opt["images_per_task"]
    sampler = StepSampler(batch, first_step, run.opt["train"]["total_iter"], run.process.rank, run.process.world_size)
    workers = opt["num_worker_per_gpu"]
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=run.process.device.type == "cuda",
    )


def train_pipeline(root: Path, argv: list[str] | None = None) -> None:
    """Run one stage from its option file: exactly `total_iter` iterations, resumed ones included.

    Args:
        root: folder of train.py.
        argv: command line; None for the process's own.

    Raises:
        UserError: a mistake in options, data or checkpoints.
    """
    run = parse(root, argv, is_train=True)
    try:
        _train(run)
    finally:
        stop()


def _train(run: Run) -> None:
    opt, process = run.opt, run.process
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    get_root_logger().setLevel(logging.INFO if process.rank == 0 else logging.ERROR)
    train_set = build_dataset(opt["datasets"]["train"])
    val_sets = [build_dataset(dataset) for phase, dataset in opt["datasets"].items() if phase != "train"]
    found = _find_state(run) if process.rank == 0 else None
    state_path, state = broadcast_object(found, process.world_size) or (None, None)
    if state is not None and state["iter"] > opt["train"]["total_iter"]:
        raise UserError(f"train.total_iter: {opt['train']['total_iter']}, but {state_path} is beyond it")
    torch.manual_seed(opt["manual_seed"])  # initial weights; every later draw has a seed of its own
    model = build_model(opt)
    if state is not None:
        model.resume_training(state, state_path)
    if process.rank == 0:
        _prepare_folder(run, state_path)  # nothing is written or moved before everything has been read
    broadcast_object(None, process.world_size)  # the folder is there before anybody writes into it

    log_file = Path(opt["path"]["run"]) / f"train_{opt['name']}_{time.strftime('%Y%m%d_%H%M%S')}.log"
    with run_logger(run, log_file) as logger:
        versions = f"mrda {__version__}, torch {torch.__version__}"
        logger.info("%s, %s, %d process(es)", versions, process.device, process.world_size)
        logger.debug("Options:\n%s", dump(opt))  # for the file: the console shows what changes
        if state is not None:
            logger.info("Resuming from %s", state_path)
        _loop(run, model, train_set, val_sets, first_step=state["iter"] if state else 0, logger=logger)


def _loop(
    run: Run, model: BaseModel, train_set: Dataset, val_sets: list[Dataset], first_step: int, logger: logging.Logger
) -> None:
    opt, is_main = run.opt, run.process.rank == 0
    total = opt["train"]["total_iter"]
    batch = opt["datasets"]["train"]["tasks_per_gpu"] * opt["datasets"]["train"]["images_per_task"]
    samples = batch * run.process.world_size
    logger.info(
        "%d images, %d samples an iteration, iterations %d to %d", len(train_set), samples, first_step + 1, total
    )
    tb_logger = _tensorboard(run) if is_main and opt["logger"]["use_tb_logger"] else None
    message = MessageLogger(
        {**opt, "logger": {**opt["logger"], "use_tb_logger": tb_logger is not None}}, first_step, tb_logger
    )
    message.max_iters = total + 1  # BasicSR counts one too few and shows a negative time at the end
    data_timer, iter_timer = AvgTimer(), AvgTimer()
    started, current_iter, validated = time.time(), first_step, -1
    bar = tqdm(total=total, initial=first_step, desc=opt["name"], unit="it", disable=None if is_main else True)
    with bar, logging_redirect_tqdm([logger]):
        for current_iter, data in enumerate(_loader(run, train_set, first_step), first_step + 1):
            data_timer.record()
            model.update_learning_rate(current_iter, opt["train"]["warmup_iter"])
            model.feed_data(data)
            model.optimize_parameters(current_iter)
            iter_timer.record()
            bar.update()
            if current_iter % opt["logger"]["print_freq"] == 0:
                log = model.get_current_log()
                message(
                    {
                        "epoch": current_iter * samples // len(train_set),
                        "iter": current_iter,
                        "lrs": model.get_current_learning_rate(),
                        "time": iter_timer.get_avg_time(),
                        "data_time": data_timer.get_avg_time(),
                        **log,
                    }
                )
            if is_main and val_sets and current_iter % opt["val"]["val_freq"] == 0:
                _validate(model, val_sets, current_iter, tb_logger)
                validated = current_iter
            if is_main and current_iter % opt["logger"]["save_checkpoint_freq"] == 0:
                model.save(current_iter)  # with what validation found
            data_timer.start()
            iter_timer.start()
        if is_main and val_sets and validated != current_iter:
            _validate(model, val_sets, current_iter, tb_logger)
    if is_main:
        if current_iter > first_step and current_iter % opt["logger"]["save_checkpoint_freq"]:
            model.save(current_iter)
        model.save_weights("latest", current_iter)
        logger.info(
            "End of training after %s; weights in %s",
            datetime.timedelta(seconds=int(time.time() - started)),
            opt["path"]["models"],
        )
    if tb_logger:
        tb_logger.close()


def _validate(model: BaseModel, val_sets: list[Dataset], current_iter: int, tb_logger: object) -> None:
    for val_set in val_sets:
        model.validation(val_set, current_iter, tb_logger)


def _tensorboard(run: Run) -> object:
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and not always wanted

    return SummaryWriter(str(Path(run.opt["path"]["run"]) / "tb_logger"))
