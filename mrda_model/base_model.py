"""What the stages share on top of BasicSR's SRModel: tasks, the optimizer step, checkpoints, validation."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mrda_data.degradation import build_degradation
from mrda_model.adaptation import Shots
from mrda_model.evaluation import Restorer, evaluate, gather_rows, means, network_restorer
from mrda_utils import checkpoint
from mrda_utils.complexity import count_parameters
from mrda_utils.distributed import any_rank
from mrda_utils.seeding import torch_generator
from mrda_utils.signals import stop_requested


def freeze(net: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients."""
    return net.eval().requires_grad_(False)


def build_frozen(opt: dict, path: str, stage: str, device: torch.device, degradation: str | None = None) -> nn.Module:
    """Build a network that is only read, with the weights of the stage that trained it (on this degradation)."""
    net = build_network(opt)
    checkpoint.load_network(net, path, stage=stage, degradation=degradation)
    return freeze(net.to(device))


def degradation_name(opt: dict) -> str:
    """One line for an option file's `degradation` section, to compare checkpoints by."""
    return ", ".join(f"{key} {value}" for key, value in opt.items())


class StageModel(SRModel):
    """Parent of the stages; a stage adds its step (`optimize_parameters`) and, where needed, its restorer."""

    find_unused_parameters = False
    start_stage: str | None = None  # stage whose weights `path.pretrain_network_g` must come from

    def __init__(self, opt: dict) -> None:
        self.degradation = build_degradation(opt["degradation"], opt["scale"])
        kind = degradation_name(opt["degradation"])
        self.provenance = checkpoint.Provenance(opt["model_type"], opt["scale"], kind)
        self.best_metric_results: dict[str, dict[str, dict[str, float]]] = {}
        self.validated_iter = 0  # the last iteration whose validation is complete
        super().__init__(opt)

    # ------------------------------------------------------------------------------------------------ construction
    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move to the device; wrap with DistributedDataParallel, also on the CPU, when there are several processes."""
        layout = torch.channels_last if self.opt["train"]["channels_last"] else torch.preserve_format
        net = net.to(self.device, memory_format=layout)
        if self.opt["dist"]:
            devices = [self.device] if self.device.type == "cuda" else None
            net = DistributedDataParallel(net, devices, find_unused_parameters=self.find_unused_parameters)
        return net

    def print_network(self, net: nn.Module) -> None:
        """Log a network's name and size."""
        bare = self.get_bare_model(net)
        get_root_logger().info(f"Network {type(bare).__name__}: {count_parameters(bare):,d} parameters")

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = "params_ema") -> None:
        """Load the weights that this stage starts from."""
        checkpoint.load_network(self.get_bare_model(net), load_path, stage=self.start_stage)
        get_root_logger().info(f"Loaded {load_path}")

    def init_training_settings(self) -> None:
        """EMA network, pixel loss and optimizer."""
        train_opt = self.opt["train"]
        self.net_g.train()
        self.ema_decay = train_opt["ema_decay"]
        if self.ema_decay > 0:
            self.net_g_ema = freeze(deepcopy(self.get_bare_model(self.net_g)))
        if train_opt.get("compile"):
            self.net_g.compile()
        self.cri_pix = build_loss(train_opt["pixel_opt"]).to(self.device)
        optim_opt = {**train_opt["optim_g"]}
        self.trained = [p for p in self.net_g.parameters() if p.requires_grad]
        # fused: the only form that skips a step without asking the device, see `apply_gradients`
        self.optimizer_g = self.get_optimizer(optim_opt.pop("type"), self.trained, **optim_opt, fused=True)
        self.optimizers.append(self.optimizer_g)
        self.skipped = torch.zeros(2, device=self.device)  # steps without finite gradients: all, and the last in a row

    # -------------------------------------------------------------------------------------------------------- step
    def update_learning_rate(self, current_iter: int, warmup_iter: int = 0) -> None:
        """Set the learning rate of iteration `current_iter` (1-based): a function of options and iteration alone."""
        train_opt = self.opt["train"]
        lr, scheduler = train_opt["optim_g"]["lr"], train_opt["scheduler"]
        if scheduler["type"] == "CosineAnnealingLR":
            wave = 1 + math.cos(math.pi * current_iter / train_opt["total_iter"])
            lr = scheduler["eta_min"] + (lr - scheduler["eta_min"]) * wave / 2
        else:
            lr *= scheduler["gamma"] ** bisect_left(scheduler["milestones"], current_iter)
        lr *= min(1.0, current_iter / max(warmup_iter, 1))
        for group in self.optimizer_g.param_groups:
            group["lr"] = lr

    def feed_data(self, data: dict) -> None:
        """Degrade the crops `data["gt"]` (tasks * images, 3, H, W), each task or image by a draw of its own."""
        images = self.opt["datasets"]["train"]["images_per_task"]
        alike = images if self.opt["degradation_per"] == "task" else 1  # images that share a draw
        gts = data["gt"].to(self.device, torch.get_default_dtype(), non_blocking=True)
        lqs = []
        for gt, sample in zip(gts.split(alike), data["sample"][::alike], strict=True):
            generator = torch_generator(self.opt["manual_seed"], "task", int(sample) // alike)
            lqs.append(self.degradation.apply(gt, self.degradation.sample(generator), generator))
        self.tasks = [Shots(*task) for task in zip(torch.cat(lqs).split(images), gts.split(images), strict=True)]

    def compute_losses(self, tasks: Sequence[Shots], current_iter: int) -> dict[str, Tensor]:
        """A stage's losses on these tasks; their sum is minimised."""
        raise NotImplementedError

    def run_network(self, lq: Tensor, *args: Tensor, **kwargs: bool) -> Any:
        """Forward pass of `net_g` in the precision and memory format of the options."""
        if self.opt["train"]["channels_last"]:
            lq = lq.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return self.net_g(lq, *args, **kwargs)

    def autocast(self) -> torch.autocast:
        """`train.amp`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.opt["train"]["amp"] == "bf16")

    def optimize_parameters(self, current_iter: int) -> None:
        """One optimizer step on the mean over micro-batches (and processes) of the stage's losses."""
        self.optimizer_g.zero_grad()
        count = self.opt["train"]["accumulation_steps"]
        size = self.opt["datasets"]["train"]["tasks_per_gpu"]
        self.losses: dict[str, Tensor] = {}
        for step in range(count):
            # gradients of several processes are reduced once, with the last micro-batch
            wait = self.opt["dist"] and step < count - 1
            with self.net_g.no_sync() if wait else nullcontext():
                losses = self.compute_losses(self.tasks[step * size : (step + 1) * size], current_iter)
                (sum(losses.values()) / count).backward()
            for name, loss in losses.items():
                self.losses[name] = self.losses.get(name, 0) + loss.detach() / count
        self.apply_gradients()

    def apply_gradients(self) -> None:
        """Optimizer and EMA step with the reduced gradients; skipped on every process if anything is not finite.

        The decision stays on the device: Adam leaves weights, moments and its step count alone where `found_inf` is 1.
        """
        norm = nn.utils.clip_grad_norm_(self.trained, self.opt["train"].get("clip_grad_norm", math.inf))
        bad = (~(norm + sum(self.losses.values())).isfinite()).float()
        if self.opt["dist"]:
            dist.all_reduce(bad, dist.ReduceOp.MAX)
        self.optimizer_g.found_inf, self.optimizer_g.grad_scale = bad, None
        self.optimizer_g.step()
        self.skipped = torch.stack([self.skipped[0] + bad, (self.skipped[1] + bad) * bad])
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged weights towards the current ones; buffers are copied."""
        bare = self.get_bare_model(self.net_g)
        torch._foreach_lerp_(list(self.net_g_ema.parameters()), [p.detach() for p in bare.parameters()], 1 - decay)
        for averaged, current in zip(self.net_g_ema.buffers(), bare.buffers(), strict=True):
            averaged.copy_(current)

    def get_current_log(self) -> OrderedDict[str, float]:
        """Losses of the last step, averaged over processes; every process must call it."""
        return self.reduce_loss_dict(self.losses)

    def skipped_steps(self) -> tuple[int, int]:
        """Steps skipped so far, and how many of them are the latest ones; the same on every process."""
        return tuple(int(number) for number in self.skipped.tolist())

    # -------------------------------------------------------------------------------------------------- validation
    def trained_network(self) -> nn.Module:
        """The network to validate: averaged weights where there are any."""
        return self.net_g_ema if self.ema_decay > 0 else self.get_bare_model(self.net_g)

    def restorer(self) -> Restorer:
        """How this stage super-resolves an image in validation."""
        return network_restorer(self.trained_network())

    def validation(
        self, dataset: torch.utils.data.Dataset, current_iter: int, tb_logger: object
    ) -> dict[str, float] | None:
        """Measure the metrics of `val` on a BenchmarkDataset, shared among processes; log means and the best so far.

        Returns:
            Mean of each metric; None if a signal came, then nothing of this validation counts.
        """
        name, val_opt = dataset.opt["name"], self.opt["val"]
        rank, world_size = self.opt["rank"], self.opt["world_size"]
        own = []
        for restored in evaluate(
            {self.opt["name"]: self.restorer()}, dataset, val_opt["metrics"], self.device, rank, world_size
        ):
            own.append((restored.index, restored.rows))
            if stop_requested():
                break
        if any_rank(stop_requested()):
            return None
        found = {metric: value for (_, _, metric), value in means(gather_rows(own)).items()}
        best = self.best_metric_results.setdefault(name, {})
        lines = [f"Validation {name}"]
        for metric, value in found.items():
            sign = -1 if val_opt["metrics"][metric]["better"] == "lower" else 1
            if metric not in best or sign * value > sign * best[metric]["val"]:
                best[metric] = {"val": value, "iter": current_iter}
                if rank == 0 and metric == val_opt.get("save_best") and name == self._first_val_set():
                    self.save_weights("best", current_iter)
            lines.append(f"\t # {metric}: {value:.4f}\tBest: {best[metric]['val']:.4f} @ {best[metric]['iter']} iter")
            if tb_logger:
                tb_logger.add_scalar(f"metrics/{name}/{metric}", value, current_iter)
        get_root_logger().info("\n".join(lines))
        return found

    def _first_val_set(self) -> str:
        return next(opt["name"] for phase, opt in self.opt["datasets"].items() if phase != "train")

    # ------------------------------------------------------------------------------------------------- checkpoints
    def save_weights(self, label: int | str, current_iter: int) -> None:
        """Write `models/net_g_<label>.pth`."""
        nets = {"params": self.get_bare_model(self.net_g)}
        if self.ema_decay > 0:
            nets["params_ema"] = self.net_g_ema
        path = Path(self.opt["path"]["models"]) / f"net_g_{label}.pth"
        checkpoint.save_network(nets, self.provenance, current_iter, path)

    def save(self, current_iter: int) -> Path:
        """Write weights, then the training state that refers to them; return the state's path.

        Raises:
            CheckpointError: weights that are not finite, or a file that cannot be written.
        """
        if not all(p.isfinite().all() for p in self.trained):
            raise checkpoint.CheckpointError(f"iteration {current_iter}: weights are not finite, nothing is saved")
        self.save_weights(current_iter, current_iter)
        state = {
            "iter": current_iter,
            "mrda": self.provenance._asdict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "best_metric_results": self.best_metric_results,
            "validated_iter": self.validated_iter,
            "skipped": self.skipped.tolist(),
        }
        path = Path(self.opt["path"]["training_states"]) / f"{current_iter}.state"
        checkpoint.save(state, path)
        return path

    def resume_training(self, resume_state: dict, state_path: Path) -> None:
        """Take up a state of `save` and its weights; from here on the run is what it would have been.

        Raises:
            CheckpointError: damaged files, or a state of another stage, scale or degradation.
        """
        origin, own = resume_state["mrda"], self.provenance._asdict()
        for key, value in own.items():
            if origin[key] != value:
                raise checkpoint.CheckpointError(f"{state_path}: {key} is '{origin[key]}', the option file's '{value}'")
        weights_path = checkpoint.network_of_state(state_path, "g")
        checkpoint.load_network(self.get_bare_model(self.net_g), weights_path, "params")
        if self.ema_decay > 0:
            checkpoint.load_network(self.net_g_ema, weights_path, "params_ema")
        for optimizer, stored in zip(self.optimizers, resume_state["optimizers"], strict=True):
            # the moments are the state's, the settings the option file's
            optimizer.load_state_dict({**stored, "param_groups": optimizer.state_dict()["param_groups"]})
        self.best_metric_results = resume_state["best_metric_results"]
        self.validated_iter = resume_state["validated_iter"]
        self.skipped = torch.tensor(resume_state["skipped"], device=self.device)
