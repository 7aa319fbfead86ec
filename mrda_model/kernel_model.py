"""Stage kernel: RDAN guided by the true blur kernel (MRDA_T3 of paper Table V)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from mrda_data.degradation.kernels import task_kernel
from mrda_data.transfer import send
from mrda_eval.evaluation import Restorer
from mrda_model.adaptation import stack
from mrda_model.base_model import StageModel
from mrda_model.restorers import kernel_oracle


class BlurredBatch(NamedTuple):
    """One task's images and the kernels that blurred them."""

    lq: Tensor
    gt: Tensor
    kernel: Tensor
    """(N, k, k)."""


@MODEL_REGISTRY.register()
class MRDAKernelModel(StageModel):
    """Trains MRDAKernelNet end to end with L_1; for comparison, since nobody knows the kernel of a photograph."""

    start_stage = "MRDAKernelModel"

    def feed_data(self, data: dict) -> None:
        """Degrade the crops as every stage does, and remember each image's kernel."""
        super().feed_data(data)
        size = self.opt["degradation"]["kernel_size"]
        draws = [self.degraded_tasks.draw(int(sample))[0] for sample in data["sample"]]
        gt = self.tasks[0].gt
        kernels = send(torch.stack([task_kernel(task, size) for task in draws]), gt.device, gt.dtype)
        images = self.opt["datasets"]["train"]["images_per_task"]
        self.tasks = [BlurredBatch(*task, own) for task, own in zip(self.tasks, kernels.split(images), strict=True)]

    def compute_losses(self, tasks: Sequence[BlurredBatch], current_iter: int) -> dict[str, Tensor]:
        """Eq. (2)."""
        lq, gt = stack(tasks)
        sr = self.run_network(lq, torch.cat([task.kernel for task in tasks]))
        return {"l_pix": self.cri_pix(sr.to(gt), gt)}

    def restorer(self) -> Restorer:
        """Oracle: the kernel is that of the test set."""
        return kernel_oracle(self.trained_network(), self.opt["degradation"]["kernel_size"])
