"""What a stage learns from MLN: its adapted feature map for a batch of tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mrda_model.adaptation import Adaptation, TaskBatch, adapted_features
from mrda_model.frozen import build_frozen, demanded_degradation


class IDRTarget:
    """A frozen MLN that adapts to each task from its own weights."""

    def __init__(self, opt: dict, device: torch.device) -> None:
        path = opt["path"]["pretrain_network_mln"]
        self.mln = build_frozen(opt["network_mln"], path, "MLNMetaModel", device, demanded_degradation(opt))
        self.adaptation = Adaptation(**opt["adaptation"])

    def __call__(self, tasks: Sequence[TaskBatch]) -> Tensor:
        """D'_T (N, C', h, w) of all tasks' images in order, detached; every task starts from the same weights."""
        return torch.cat([adapted_features(self.mln, *task, self.adaptation) for task in tasks])
