"""From crops of ground truth to the tasks that a stage trains on."""

from __future__ import annotations

import torch

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
        self.images_per_task = opt["datasets"]["train"]["images_per_task"]
        self.images_per_draw = self.images_per_task if opt["degradation_per"] == "task" else 1

    def __call__(self, data: dict) -> list[TaskBatch]:
        """Tasks of a batch of GTDataset: `gt` (tasks * images, 3, H, W) uint8 and their numbers `sample`."""
        gts = crops(data, self.device)
        lqs = []
        for gt, sample in zip(gts.split(self.images_per_draw), data["sample"][:: self.images_per_draw], strict=True):
            lqs.append(self.degradation.apply(gt, *self.draw(int(sample))))
        split = torch.cat(lqs).split(self.images_per_task), gts.split(self.images_per_task)
        return [TaskBatch(*task) for task in zip(*split, strict=True)]

    def draw(self, sample: int) -> tuple[Task, torch.Generator]:
        """Degradation parameters of a sample number, and the generator of its task's (or image's) noise."""
        generator = torch_generator(self.seed, "task", sample // self.images_per_draw)
        return self.degradation.sample(generator), generator
