"""The iterations of a training, and what happens between them: log, validation, checkpoints, the orderly end."""

from __future__ import annotations

import datetime
import logging
import math
import time
from pathlib import Path

from torch.utils.data import DataLoader, Dataset
from tqdm.contrib.logging import logging_redirect_tqdm

from mrda_eval.progress import progress_bar
from mrda_model import training_state
from mrda_model.base_model import StageModel
from mrda_options.process import Process
from mrda_pipeline.events import record
from mrda_pipeline.run_log import RunLog
from mrda_pipeline.sampler import StepSampler
from mrda_pipeline.signals import START_METHOD, leave_signals_to_parent, requested_by, stop_requested
from mrda_pipeline.validation import validate
from mrda_pipeline.workers import batches
from mrda_utils.distributed import any_rank, barrier
from mrda_utils.errors import Stopped, UserError
from mrda_utils.memory import device_memory

DIVERGED = 100  # times the lowest pixel loss of the run
LEAST_LOSS = 0.01  # flat images have none


class TrainingLoop:
    """Runs a stage from one iteration to `total_iter`.

    Args:
        opt: complete options.
        process: this process.
        model: a StageModel.
        train_set: a GTDataset.
        val_sets: BenchmarkDatasets, may be empty.
        logger: console and log file.
    """

    def __init__(
        self,
        opt: dict,
        process: Process,
        model: StageModel,
        train_set: Dataset,
        val_sets: list[Dataset],
        logger: logging.Logger,
    ) -> None:
        self.opt, self.process, self.model, self.logger = opt, process, model, logger
        self.train_set, self.val_sets = train_set, val_sets
        self.is_main, self.folder = process.rank == 0, Path(opt["path"]["run"])
        self.total = opt["train"]["total_iter"]
        train_opt = opt["datasets"]["train"]
        self.batch = train_opt["tasks_per_gpu"] * train_opt["images_per_task"]
        self.samples = self.batch * opt["train"]["accumulation_steps"] * process.world_size  # of an iteration
        self.logged_skips = 0
        self.lowest_loss = math.inf  # mean pixel loss between two looks at it

    def run(self, first_step: int) -> None:
        """Train from the state after iteration `first_step` to the end.

        Raises:
            Stopped: a signal came; everything is saved.
            UserError: too many steps in a row without finite gradients, a pixel loss that has exploded, or a file that
                cannot be written.
        """
        folder = self.opt["datasets"]["train"]["dataroot_gt"]
        found = f"{len(self.train_set)} images in {folder}, {self.samples} samples an iteration"
        self.logger.info("%s, iterations %d to %d", found, first_step + 1, self.total)
        self.log = RunLog(self.opt, self.process, self.logger, len(self.train_set), self.samples, first_step)
        self.started, self.first_step = time.time(), first_step
        self.logged_skips = self.model.skipped_steps()[0]
        bar = progress_bar(self.opt["name"], self.is_main, total=self.total, initial=first_step)
        with bar, logging_redirect_tqdm([self.logger]):
            if self._validation_due(first_step):  # the run was stopped before or in it
                self._between(first_step, stopping=False)
            for current_iter, data in enumerate(batches(self._loader(first_step)), first_step + 1):
                self.log.data_came()
                self.model.update_learning_rate(current_iter, self.opt["train"]["warmup_iter"])
                self.model.feed_data(data)
                self.model.optimize_parameters(current_iter)
                self.log.step_done(self.model.losses)
                bar.update()
                self._between(current_iter, stopping=any_rank(stop_requested()))
                self.log.restart()
        if self.is_main:
            self._end()
        self.log.close()

    def _end(self) -> None:
        self.model.save_weights("latest", self.total)
        record(self.folder, "end", self.total)
        duration = datetime.timedelta(seconds=max(int(time.time() - self.started), 0))
        self.logger.info("End of training after %s; weights in %s", duration, self.opt["path"]["models"])

    # ------------------------------------------------------------------------------------------ between iterations
    def _between(self, current_iter: int, stopping: bool) -> None:
        """What is due after an iteration, in an order that leaves nothing out of the checkpoint."""
        is_last = current_iter == self.total
        log_due = current_iter % self.opt["logger"]["print_freq"] == 0 and current_iter > self.first_step
        save_due = current_iter % self.opt["logger"]["save_checkpoint_freq"] == 0 or is_last or stopping
        diverged = (log_due or save_due) and self._diverged()  # a line forgets the losses
        if log_due:
            self.log.line(self.model, current_iter)
        if log_due or save_due:
            self._guard(current_iter, diverged)
        if save_due:  # first: whatever becomes of the validation, nothing is lost
            self._save(current_iter)
        if self._validation_due(current_iter) and not stopping:
            stopping = not self._validate(current_iter)
            if save_due and self.is_main:
                self.model.save_state(current_iter)  # again, with what the validation found
            elif stopping:
                self._save(current_iter)
        if stopping:
            self._stop(current_iter)

    def _validation_due(self, current_iter: int) -> bool:
        at = current_iter and self.val_sets and self.model.validated_iter != current_iter
        return bool(at) and (current_iter % self.opt["val"]["val_freq"] == 0 or current_iter == self.total)

    def _validate(self, current_iter: int) -> bool:
        """Validate on every set; False if a signal came in between."""
        for val_set in self.val_sets:
            found = validate(self.model, val_set, current_iter, self.log.curves)
            if found is None:
                return False
            if self.is_main:
                record(self.folder, "validation", current_iter, dataset=val_set.opt["name"], **found)
        self.model.validated_iter = current_iter
        return True

    def _save(self, current_iter: int) -> None:
        if not self.is_main:
            return
        path = self.model.save(current_iter)
        if not self.model.skipped_steps()[1]:  # else these weights may be why, and older ones stay
            training_state.prune(self.folder, self.opt["logger"].get("keep_last"))
        seconds = max(time.time() - self.started, 1e-3) / max(current_iter - self.first_step, 1)  # clocks are set back
        record(
            self.folder,
            "save",
            current_iter,
            state=str(path),
            iter_per_s=round(1 / seconds, 4),
            eta_s=round(seconds * (self.total - current_iter)),
            memory_mib=device_memory(self.process.device),
        )

    def _stop(self, current_iter: int) -> None:
        number = requested_by()
        barrier()  # a rank that leaves early would have the launcher kill the one that saves
        if not self.is_main:
            raise SystemExit(128 + number)
        record(self.folder, "stop", current_iter, signal=number.name)
        raise Stopped(
            f"stopped by {number.name} at iteration {current_iter}, which is saved; --auto_resume goes on from it",
            128 + number,
        )

    def _diverged(self) -> bool:
        """Whether the pixel loss, finite as it may be, has left what this run has seen; the same on every process."""
        loss = self.log.pixel_loss()
        diverged = any_rank(loss > DIVERGED * max(self.lowest_loss, LEAST_LOSS))
        self.lowest_loss = min(self.lowest_loss, loss)
        return diverged

    def _guard(self, current_iter: int, diverged: bool) -> None:
        """Report skipped steps; end the run if there were too many of them in a row, or if it has diverged.

        Waits for the device.
        """
        skipped, in_a_row = self.model.skipped_steps()
        if skipped > self.logged_skips:
            self.logger.warning(
                "%d steps skipped since the last line: no finite loss or gradient", skipped - self.logged_skips
            )
            if self.is_main:
                record(self.folder, "skip", current_iter, steps=skipped - self.logged_skips, in_a_row=in_a_row)
            self.logged_skips = skipped
        if in_a_row >= self.opt["train"]["max_skipped"]:
            reason = f"train.max_skipped: the last {in_a_row} steps had no finite loss or gradient"
        elif diverged:
            reason = f"the training has diverged: its pixel loss is more than {DIVERGED} times what it was"
        else:
            return
        barrier()  # every process has found it, and the main one tells
        if not self.is_main:
            raise SystemExit(2)
        states = training_state.states(self.folder / "training_states")
        last = f"the last checkpoint is {states[0]}" if states else "nothing was saved before"
        raise UserError(
            f"{reason}; {last}; lower train.optim_g.lr or adaptation.inner_lrs, or set train.clip_grad_norm"
        )

    # ------------------------------------------------------------------------------------------------ construction
    def _loader(self, first_step: int) -> DataLoader:
        train_opt, workers = self.opt["train"], self.opt["datasets"]["train"]["num_worker_per_gpu"]
        sampler = StepSampler(
            self.batch,
            first_step,
            self.total,
            self.process.rank,
            self.process.world_size,
            train_opt["accumulation_steps"],
        )
        return DataLoader(
            self.train_set,
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.process.device.type == "cuda",
            worker_init_fn=leave_signals_to_parent,
            multiprocessing_context=START_METHOD if workers > 0 else None,
        )
