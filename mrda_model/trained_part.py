"""What a stage trains: a network with its optimizer, its averaged weights and its files."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrda_model import training_state
from mrda_model.guarded_step import Step, guarded_step
from mrda_model.weights import Provenance, different_parts, load_network, save_network
from mrda_utils import checkpoint


@dataclass(frozen=True)
class TrainedPart:
    """One network of a stage; every stage has `g`, adversarial ones have `d` as well."""

    label: str
    """Names the options `optim_<label>` and the files `net_<label>_<iteration>.pth`."""
    net: nn.Module
    """Without a wrapper for several processes."""
    optimizer: torch.optim.Adam
    ema: nn.Module | None = None
    """The same network with averaged weights."""
    ema_decay: float = 0
    """Of the average, an iteration."""
    clip_grad_norm: float | None = None

    def set_learning_rate(self, train_opt: dict[str, Any], current_iter: int, warmup_iter: int) -> None:
        """Set the learning rate of iteration `current_iter` (1-based), a function of options and iteration alone."""
        scheduler, lr = train_opt["scheduler"], train_opt[f"optim_{self.label}"]["lr"]
        if scheduler["type"] == "MultiStepLR":
            lr *= scheduler["gamma"] ** bisect_left(scheduler["milestones"], current_iter)
        else:
            periods = scheduler.get("periods", [train_opt["total_iter"]])
            ends = list(accumulate(periods))
            gone = current_iter - 1  # as in BasicSR, the first iteration has the whole rate
            now = bisect_left(ends, gone)
            wave = 1 + math.cos(math.pi * (gone - ends[now] + periods[now]) / periods[now])
            weight = scheduler.get("restart_weights", [1])[now]
            lr = scheduler["eta_min"] + weight * (lr - scheduler["eta_min"]) * wave / 2
        for group in self.optimizer.param_groups:
            group["lr"] = lr * min(1.0, current_iter / max(warmup_iter, 1))

    def step(self, losses: Iterable[Tensor]) -> Step:
        """Move the weights by their reduced gradients unless something is not finite; the average follows."""
        step = guarded_step(self.optimizer, losses, self.clip_grad_norm)
        if self.ema is not None:
            self._average()
        return step

    def _average(self) -> None:
        """Move the averaged weights towards the current ones; buffers are copied."""
        current = [p.detach() for p in self.net.parameters()]
        torch._foreach_lerp_(list(self.ema.parameters()), current, 1 - self.ema_decay)
        for averaged, buffer in zip(self.ema.buffers(), self.net.buffers(), strict=True):
            averaged.copy_(buffer)

    def save(self, folder: Path, name: int | str, provenance: Provenance, iteration: int) -> None:
        """Write `net_<label>_<name>.pth`."""
        nets = {"params": self.net} | ({} if self.ema is None else {"params_ema": self.ema})
        save_network(nets, provenance, iteration, folder / f"net_{self.label}_{name}.pth")

    def resume(self, moments: dict[str, Any], state_path: Path) -> None:
        """Load the weights that belong to a training state, and the optimizer's moments in it.

        Raises:
            CheckpointError: damaged, or of another network.
        """
        path = training_state.network_of_state(state_path, self.label)
        load_network(self.net, path, "params")
        if self.ema is not None:
            load_network(self.ema, path, "params_ema")
        training_state.load_moments(self.optimizer, moments, state_path)


def resume_parts(
    parts: list[TrainedPart],
    provenance: Provenance,
    state: dict[str, Any],
    state_path: Path,
    changed: bool = False,
) -> None:
    """Load a training state of the same stage, scale and degradation, and the weights that belong to it.

    Args:
        parts: what it is loaded into.
        provenance: of this training.
        state: the state.
        state_path: its file, for messages.
        changed: allow a state of another degradation.

    Raises:
        CheckpointError: damaged files, or a state of another training.
    """
    for key, value in provenance._asdict().items():
        if state["mrda"][key] != value and not (changed and key == "degradation"):
            theirs, ours = different_parts(str(state["mrda"][key]), str(value))
            raise checkpoint.CheckpointError(f"{state_path}: {key} is '{theirs}', the option file's '{ours}'")
    if len(parts) != len(state["optimizers"]):
        there, here = ("without", "with") if len(parts) > 1 else ("with", "without")
        raise checkpoint.CheckpointError(f"{state_path}: trained {there} network_d, the option file is {here} it")
    for part, moments in zip(parts, state["optimizers"], strict=True):
        part.resume(moments, state_path)
