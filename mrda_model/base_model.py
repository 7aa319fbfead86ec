"""What the stages share on top of BasicSR's SRModel: tasks, the optimizer step, checkpoints, validation."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from mrda_data.degradation.sharpen import usm_sharpen
from mrda_eval.complexity import count_parameters
from mrda_eval.evaluation import Restorer
from mrda_metric import metrics_of
from mrda_model.adaptation import TaskBatch, stack
from mrda_model.adversary import Adversary
from mrda_model.degraded_tasks import DegradedTasks
from mrda_model.frozen import degradation_name, freeze
from mrda_model.parallel import parallel, reduced_once
from mrda_model.precision import autocast
from mrda_model.restorers import network_restorer
from mrda_model.trained_part import TrainedPart, resume_parts
from mrda_model.weights import Provenance, load_network
from mrda_utils import checkpoint


class StageModel(SRModel):
    """Parent of the stages; a stage adds its step (`optimize_parameters`) and, where needed, its restorer."""

    find_unused_parameters = False
    start_stage: str | tuple[str, ...] | None = None  # stages whose weights `path.pretrain_network_g` must come from
    adversary: Adversary | None = None  # with `network_d`

    def __init__(self, opt: dict) -> None:
        self.provenance = Provenance(opt["model_type"], opt["scale"], degradation_name(opt["degradation"]))
        self.best_metric_results: dict[str, dict[str, dict[str, float]]] = {}
        self.validated_iter = 0  # the last iteration whose validation is complete
        self.conditions: dict[str, str] = {}  # of the run, stored with its states
        self.metrics = metrics_of(opt["val"]["metrics"], complete=True) if "val" in opt else []
        super().__init__(opt)
        self.degraded_tasks = DegradedTasks(opt, self.device)

    # ------------------------------------------------------------------------------------------------ construction
    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move to the device, and wrap where there are several processes."""
        layout = torch.channels_last if self.opt["train"]["channels_last"] else torch.preserve_format
        net = net.to(self.device, memory_format=layout)
        return (
            parallel(net, self.device, find_unused_parameters=self.find_unused_parameters) if self.opt["dist"] else net
        )

    def print_network(self, net: nn.Module) -> None:
        """Log a network's name and size."""
        bare = self.get_bare_model(net)
        get_root_logger().info(f"Network {type(bare).__name__}: {count_parameters(bare):,d} parameters")

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = "params_ema") -> None:
        """Load the weights that this stage starts from."""
        load_network(self.get_bare_model(net), load_path, stage=self.start_stage)
        get_root_logger().info(f"Loaded {load_path}")

    def init_training_settings(self) -> None:
        """EMA network, pixel loss and optimizer."""
        train_opt = self.opt["train"]
        self.net_g.train()
        decay, bare = train_opt["ema_decay"], self.get_bare_model(self.net_g)
        self.net_g_ema = freeze(deepcopy(bare)) if decay > 0 else None
        if train_opt.get("compile"):
            self.net_g.compile()
        self.cri_pix = build_loss(train_opt["pixel_opt"]).to(self.device)
        optim_opt = {**train_opt["optim_g"]}
        self.trained = [p for p in self.net_g.parameters() if p.requires_grad]
        # fused: the only form that skips a step without asking the device, see `guarded_step`
        self.optimizer_g = self.get_optimizer(optim_opt.pop("type"), self.trained, **optim_opt, fused=True)
        clip = train_opt.get("clip_grad_norm")
        self.parts = [TrainedPart("g", bare, self.optimizer_g, self.net_g_ema, decay, clip)]
        if "network_d" in self.opt:
            self.adversary = Adversary(self.opt, self.device)
            self.parts.append(TrainedPart("d", self.adversary.bare, self.adversary.optimizer))
        self.optimizers = [part.optimizer for part in self.parts]  # BasicSR's log reads their learning rates
        # both stay on the device until they are logged: other scalars of the last step than its losses; and the steps
        # without finite gradients, all of them and the last in a row
        self.watched, self.skipped = {}, torch.zeros(2, device=self.device)

    # -------------------------------------------------------------------------------------------------------- step
    def update_learning_rate(self, current_iter: int, warmup_iter: int = 0) -> None:
        """Set the learning rates of iteration `current_iter` (1-based)."""
        for part in self.parts:
            part.set_learning_rate(self.opt["train"], current_iter, warmup_iter)

    def feed_data(self, data: dict) -> None:
        """Degrade a batch of GTDataset's crops."""
        self.tasks = self.degraded_tasks(data)

    def compute_losses(self, tasks: Sequence[TaskBatch], current_iter: int) -> dict[str, Tensor]:
        """A stage's losses on these tasks, whose sum is minimised; here Eq. (2) on the output of `net_g`."""
        lq, gt = stack(tasks)
        return {"l_pix": self.cri_pix(self.run_network(lq).to(gt), gt)}

    def restoration_losses(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """`l_pix` of Eq. (2); with a discriminator, `l_percep` and `l_g_gan` of Eq. (3) as well."""
        self.output, train_opt = sr.to(gt), self.opt["train"]
        losses = {"l_pix": self.cri_pix(self.output, usm_sharpen(gt) if train_opt["l1_gt_usm"] else gt)}
        if self.adversary:
            target = usm_sharpen(gt) if train_opt["percep_gt_usm"] else gt
            losses |= self.adversary.generator_losses(self.output, target)
        return losses

    def run_network(self, lq: Tensor, *args: Tensor | None, **kwargs: bool) -> Any:
        """Forward pass of `net_g` in the precision and memory format of the options."""
        if self.opt["train"]["channels_last"]:
            lq = lq.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.opt["train"]["amp"]):
            return self.net_g(lq, *args, **kwargs)

    def optimize_parameters(self, current_iter: int) -> None:
        """One optimizer step on the mean over micro-batches (and processes) of the stage's losses."""
        for part in self.parts:
            part.optimizer.zero_grad()
        if self.adversary:
            self.adversary.power_iteration()
        count, size = self.opt["train"]["accumulation_steps"], self.opt["datasets"]["train"]["tasks_per_gpu"]
        trains_g = self.adversary is None or self.adversary.generator_turn(current_iter)
        total: dict[str, Tensor] = defaultdict(float)
        for step in range(count):
            tasks = self.tasks[step * size : (step + 1) * size]
            with reduced_once(self.net_g, step == count - 1), torch.set_grad_enabled(trains_g):
                losses = self.compute_losses(tasks, current_iter)
                if trains_g:
                    (sum(losses.values()) / count).backward()
            if self.adversary:
                losses |= self.adversary.accumulate(self.output, stack(tasks), step, count)
            for name, loss in losses.items():
                total[name] += loss.detach() / count
        self.losses = dict(total)
        self.apply_gradients(trains_g)

    def apply_gradients(self, trains_g: bool = True) -> None:
        """Optimizer and EMA steps with the reduced gradients.

        A network's is skipped on every process if a loss or its gradient is not finite. An iteration of the
        discriminator alone does not end a row of skipped steps: the generator may still be stuck.
        """
        skipped = torch.zeros((), device=self.device)
        for part in self.parts if trains_g else self.parts[1:]:
            own, self.watched["grad_norm" if part.label == "g" else "grad_norm_d"] = part.step(self.losses.values())
            skipped = torch.maximum(skipped, own)
        steps, latest = self.skipped + skipped
        self.skipped = torch.stack([steps, latest * skipped if trains_g else latest])

    def get_current_log(self) -> OrderedDict[str, float]:
        """Losses of the last step, averaged over processes; every process must call it."""
        return self.reduce_loss_dict(self.losses)

    def watch(self) -> dict[str, Tensor]:
        """Scalars of this process for curves, besides losses; expensive, for log lines only."""
        return self.watched

    def skipped_steps(self) -> tuple[int, int]:
        """Steps skipped so far, and how many of them are the latest ones; the same on every process."""
        return tuple(int(number) for number in self.skipped.tolist())

    # -------------------------------------------------------------------------------------------------- validation
    def trained_network(self) -> nn.Module:
        """The network to validate: averaged weights where there are any."""
        return self.parts[0].net if self.net_g_ema is None else self.net_g_ema

    def restorer(self) -> Restorer:
        """How this stage super-resolves an image in validation."""
        return network_restorer(self.trained_network())

    # ------------------------------------------------------------------------------------------------- checkpoints
    def save_weights(self, label: int | str, current_iter: int) -> None:
        """Write `models/net_g_<label>.pth`, and with a discriminator `models/net_d_<label>.pth`."""
        for part in self.parts:
            part.save(Path(self.opt["path"]["models"]), label, self.provenance, current_iter)

    def save(self, current_iter: int) -> Path:
        """Write weights, then the training state that refers to them; return the state's path.

        Raises:
            CheckpointError: weights that are not finite, or a file that cannot be written.
        """
        if not all(p.isfinite().all() for p in self.trained):
            raise checkpoint.CheckpointError(f"iteration {current_iter}: weights are not finite, nothing is saved")
        self.save_weights(current_iter, current_iter)
        return self.save_state(current_iter)

    def save_state(self, current_iter: int) -> Path:
        """Write the training state alone; the weights of this iteration are there."""
        state = {
            "iter": current_iter,
            "mrda": self.provenance._asdict(),
            "optimizers": [part.optimizer.state_dict() for part in self.parts],
            "best_metric_results": self.best_metric_results,
            "validated_iter": self.validated_iter,
            "skipped": self.skipped.tolist(),
            "conditions": self.conditions,
        }
        path = Path(self.opt["path"]["training_states"]) / f"{current_iter}.state"
        checkpoint.save(state, path)
        return path

    def resume_training(self, resume_state: dict, state_path: Path, changed: bool = False) -> None:
        """Load a state of `save` and its weights, see `resume_parts`; the run continues as if it had not ended."""
        resume_parts(self.parts, self.provenance, resume_state, state_path, changed)
        if state_path.parent.resolve() == Path(self.opt["path"]["training_states"]).resolve():
            self.best_metric_results = resume_state["best_metric_results"]  # net_g_best.pth is in this folder
        self.validated_iter = resume_state["validated_iter"]
        self.skipped = torch.tensor(resume_state["skipped"], device=self.device)
