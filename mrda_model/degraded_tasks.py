"""From crops of ground truth to the tasks that a stage trains on."""

from __future__ import annotations

import torch
from torch import Tensor

from mrda_data.degradation import Task, build_degradation
from mrda_data.gt_dataset import crops
from mrda_model.adaptation import TaskBatch
from mrda_utils.seeding import torch_generator


class DegradedTasks:
    """Degrades each task, or each image, by a draw of its own.

    Args:
        opt: complete options of a training.
        device: where crops are degraded.
    """

    def __init__(self, opt: dict, device: torch.device) -> None:
        self.degradation = build_degradation(opt["degradation"], opt["scale"])
        self.seed, self.device = opt["manual_seed"], device
        train_set = opt["datasets"]["train"]
        self.images_per_task = train_set["images_per_task"]
        self.margin = (train_set.get("degrade_size", train_set["gt_size"]) - train_set["gt_size"]) // 2
        self.lq_margin = self.margin // opt["scale"]
        self.images_per_draw = self.images_per_task if opt["degradation_per"] == "task" else 1

    def __call__(self, data: dict) -> list[TaskBatch]:
        """Tasks of a batch of GTDataset: `gt` (tasks * images, 3, H, W) uint8 and their numbers `sample`."""
        gts = crops(data, self.device)
        lqs = []
        for gt, sample in zip(gts.split(self.images_per_draw), data["sample"][:: self.images_per_draw], strict=True):
            lqs.append(self.degradation.apply(gt, *self.draw(int(sample))))
        lq, gt = _cut(torch.cat(lqs), self.lq_margin), _cut(gts, self.margin)
        split = lq.split(self.images_per_task), gt.split(self.images_per_task)
        return [TaskBatch(*task) for task in zip(*split, strict=True)]

    def draw(self, sample: int) -> tuple[Task, torch.Generator]:
        """Degradation parameters of a sample number, and the generator of its task's (or image's) noise."""
        generator = torch_generator(self.seed, "task", sample // self.images_per_draw)
        return self.degradation.sample(generator), generator


def _cut(images: Tensor, margin: int) -> Tensor:
    """(N, 3, H, W) without `margin` pixels at each side, which a blur has taken from beyond the border."""
    return images[..., margin:-margin, margin:-margin].contiguous() if margin else images
