"""What a training logs while it runs: BasicSR's lines, TensorBoard's curves, events.jsonl."""

from __future__ import annotations

import logging
import math
from collections import defaultdict, deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from basicsr.utils import AvgTimer, MessageLogger
from basicsr.utils.logger import init_wandb_logger
from torch import Tensor

from mrda_model.base_model import StageModel
from mrda_options.process import Process
from mrda_pipeline.curves import Curves
from mrda_pipeline.events import record
from mrda_utils.memory import device_memory

AVERAGED = 1000  # iterations that a mean goes back at most
PIXEL_LOSSES = "l_pix", "l_meta"  # of which a stage has one
DATA_SHARE = 0.3  # of an iteration; beyond it the loader is worth a warning


class RunLog:
    """Remembers times and losses of the iterations since the last line, and writes a line where one is due.

    Args:
        opt: complete options.
        process: this process; the main one writes, all must call `line`.
        logger: console and log file.
        images: of the training set.
        samples: that an iteration reads, in all processes.
        first_step: iteration that the run goes on from.
    """

    def __init__(
        self, opt: dict, process: Process, logger: logging.Logger, images: int, samples: int, first_step: int
    ) -> None:
        self.opt, self.process, self.logger, self.images, self.samples = opt, process, logger, images, samples
        self.is_main, self.folder = process.rank == 0, Path(opt["path"]["run"])
        self.curves = self._curves(first_step)
        self.message = MessageLogger(opt, first_step)
        self.message.use_tb_logger = False  # `line` writes all curves at once
        self.message.max_iters = opt["train"]["total_iter"] + 1  # BasicSR counts one too few: negative at the end
        self.iter_timer, self.data_timer = AvgTimer(), AvgTimer()
        self.counts = False  # the first iteration starts the loader
        self.losses: dict[str, deque[Tensor]] = defaultdict(partial(deque, maxlen=AVERAGED))
        self.data_warned = False

    # ------------------------------------------------------------------------------------------ at every iteration
    def data_came(self) -> None:
        """Call it when the loader has returned a batch."""
        if self.counts:
            self.data_timer.record()

    def step_done(self, losses: dict[str, Tensor]) -> None:
        """Call it after the optimizer's step; its losses stay on the device."""
        if self.counts:
            self.iter_timer.record()
        for name, loss in losses.items():
            self.losses[name].append(loss)

    def restart(self) -> None:
        """Call it before the next batch is read: the time since `step_done` does not count."""
        self.counts = True
        self.data_timer.start()
        self.iter_timer.start()

    # ----------------------------------------------------------------------------------------------- now and then
    def pixel_loss(self) -> float:
        """Mean of the stage's pixel loss since the last line, this process's; NaN without any. Waits for the device."""
        losses = [loss for name in PIXEL_LOSSES for loss in self.losses.get(name, ())]
        return float(_finite_mean(losses)) if losses else math.nan

    def line(self, model: StageModel, current_iter: int) -> None:
        """BasicSR's line, the curves, and a warning if the loader is slow; waits for the device."""
        means = {f"{name}_mean": _finite_mean(losses) for name, losses in self.losses.items()}
        self.losses.clear()
        values = model.reduce_loss_dict({**model.losses, **model.watch(), **means})
        iter_time, data_time = self.iter_timer.get_avg_time(), self.data_timer.get_avg_time()
        skipped = model.skipped_steps()[0]
        if not self.is_main:
            return
        self.message(
            {
                "epoch": current_iter * self.samples // self.images,
                "iter": current_iter,
                "lrs": model.get_current_learning_rate(),
                "time": iter_time,
                "data_time": data_time,
                **{name: values[name] for name in (*model.losses, "grad_norm") if name in values},
            }
        )
        values |= {f"lr_{part.label}": part.optimizer.param_groups[0]["lr"] for part in model.parts}
        values["skipped_steps"] = skipped
        if (memory := device_memory(self.process.device)) is not None:
            values["memory_mib"] = memory
        if iter_time:
            values |= {"iter_per_s": 1 / iter_time, "data_share": data_time / iter_time}
        record(self.folder, "log", current_iter, **values)
        if self.curves:
            self.curves.add({_curve(name): value for name, value in values.items()}, current_iter)
        self._warn(data_time, iter_time)

    def _warn(self, data_time: float, iter_time: float) -> None:
        if data_time <= DATA_SHARE * iter_time or self.data_warned:
            return
        self.data_warned = True
        self.logger.warning(
            "Reading data takes %d %% of the time; raise datasets.train.num_worker_per_gpu (now %d), prepare "
            "sub-images, or keep decoded images (datasets.train.cache, docs/data.md)",
            100 * data_time / iter_time,
            self.opt["datasets"]["train"]["num_worker_per_gpu"],
        )

    def close(self) -> None:
        """End TensorBoard's thread."""
        if self.curves:
            self.curves.close()

    def _curves(self, first_step: int) -> Curves | None:
        if not self.is_main or not self.opt["logger"]["use_tb_logger"]:
            return None
        if "wandb" in self.opt["logger"]:
            init_wandb_logger(self.opt)  # before the writer: wandb patches it to follow
        return Curves(self.folder / "tb_logger", first_step)


def _finite_mean(losses: Iterable[Tensor]) -> Tensor:
    """Mean of those that are finite; those of skipped steps are not."""
    values = torch.stack(list(losses))
    finite = values.isfinite()
    return values.where(finite, 0).sum() / finite.sum()


def _curve(name: str) -> str:
    """A value's name in TensorBoard, whose groups come before the slash; losses are where BasicSR has them."""
    return f"losses/{name}" if name.startswith("l_") else f"training/{name}"
