"""Whole test images under a list of fixed degradations."""

from __future__ import annotations

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mrda_data.degradation.classic import classic_degrade
from mrda_data.protocols import protocol_tasks, task_label
from mrda_data.sources import check_source, open_source
from mrda_utils.seeding import torch_generator


@DATASET_REGISTRY.register()
class BenchmarkDataset(Dataset):
    """Every image of a folder, cropped to a multiple of the scale, under every task of a protocol.

    The noise of an item depends on the image's name, the task and nothing else.

    Args:
        opt: `dataroot_gt` a folder, an LMDB or `bundled:test`, `scale`, `protocol`, `kernel_size`; optional
            `max_images` and `max_side` (pixels of gt, a central crop) keep validation during training short.

    Raises:
        ImageError: no image, or one that cannot be read or is too small for the kernel.
    """

    def __init__(self, opt: dict) -> None:
        self.opt = opt
        self.source = open_source(opt["dataroot_gt"])
        self.tasks = protocol_tasks(opt["protocol"], opt["scale"])
        self.names = self.source.names[: opt.get("max_images")]
        check_source(self.source, max(opt["kernel_size"] // 2 + 1, opt["scale"]), self.names)
        self._image: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return len(self.names) * len(self.tasks)

    def _read(self, index: int) -> np.ndarray:
        """Image `index`, decoded once for all of its tasks."""
        if self._image[0] != index:
            self._image = (index, self.source.read(index))
        return self._image[1]

    def __getitem__(self, index: int) -> dict:
        """Return `gt` (3, H, W), `lq` (3, H / scale, W / scale), `lq_path` (the name), `kernel` (label) and `task`."""
        image_index, task_index = divmod(index, len(self.tasks))
        scale, task, name = self.opt["scale"], self.tasks[task_index], self.names[image_index]
        image = torch.from_numpy(self._read(image_index)).permute(2, 0, 1).float() / 255
        height, width = (min(side, self.opt.get("max_side") or side) for side in image.shape[1:])
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
        gt = image[:, top : top + height // scale * scale, left : left + width // scale * scale]
        generator = torch_generator(0, f"noise {name}", task_index)
        lq = classic_degrade(gt[None], task, scale, self.opt["kernel_size"], generator)[0]
        return {"gt": gt, "lq": lq, "lq_path": name, "kernel": task_label(task), "task": task}
