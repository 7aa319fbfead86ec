"""Whole test images under a list of fixed degradations."""

from __future__ import annotations

import math
from pathlib import PurePosixPath

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from mrda_data.degradation import PhotoDegradation, RealESRGANDegradation
from mrda_data.degradation.classic import classic_degrade
from mrda_data.images import ImageError, centre, to_tensor
from mrda_data.lr_set import LRSet, lr_file
from mrda_data.protocols import Case, protocol_cases
from mrda_data.sources import check_source, first_images, open_source
from mrda_utils.seeding import torch_generator


@DATASET_REGISTRY.register()
class BenchmarkDataset(Dataset):
    """Every image of a folder, cropped to a multiple of the scale, under every case of a protocol.

    The noise of an item depends on the image's name (without its suffix), the case's place in the protocol (its kernel
    and noise level) and nothing else.

    Args:
        opt: `dataroot_gt` a folder, an LMDB or `bundled:test`, `scale`, `protocol`, `kernel_size`; optional
            `dataroot_lq`, a folder of `write_lr_set`, or its LMDB, to read the LR images from; optional `max_images`
            and `max_side` (pixels of gt, a central crop) keep validation during training short.

    Images that cannot be read or are too small for the kernel are no items; `left_out` has a line for each. `sr_sizes`
    has the (height, width) of the others' gt by name, `sizes` those that there are.

    Raises:
        ImageError: no image that can be used, one that is not the LR set's, `max_side` below what the kernel
            needs, or `max_images` below 1.
    """

    def __init__(self, opt: dict) -> None:
        self.opt = opt
        self.source = open_source(opt["dataroot_gt"])
        self.cases = protocol_cases(opt["protocol"], opt["scale"])
        scale = opt["scale"]
        smallest = math.ceil((opt["kernel_size"] // 2 + 1) / scale) * scale  # sides are cut to a multiple of the scale
        if opt.get("max_side", smallest) < smallest:
            raise ImageError(
                f"{opt['name']}: max_side {opt['max_side']} is too small for scale {scale} and kernel_size "
                f"{opt['kernel_size']}; at least {smallest} pixels"
            )
        self._smallest = smallest
        self.left_out: list[str] = []
        found = check_source(self.source, smallest, first_images(self.source.names, opt), self.left_out)
        self.indices, self.names = list(found), [self.source.names[i] for i in found]
        self.sr_sizes = {
            self.source.names[i]: tuple(min(n, opt.get("max_side") or n) // scale * scale for n in size)
            for i, size in found.items()
        }
        self.sizes = set(self.sr_sizes.values())
        self.lr_set = None
        if "dataroot_lq" in opt:
            files = [lr_file(case.label, name) for name in self.names for case in self.cases]
            self.lr_set = LRSet(opt["dataroot_lq"], files)
        self._image: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return len(self.names) * len(self.cases)

    def _read(self, index: int) -> np.ndarray:
        """Image `index` of `names`, decoded once for all of its cases."""
        if self._image[0] != index:
            image = self.source.read(self.indices[index])
            if min(image.shape[:2]) < self._smallest:
                raise ImageError(
                    f"{self.opt['name']}: {self.names[index]} has {image.shape[0]}x{image.shape[1]} pixels, fewer than "
                    f"at the start; at least {self._smallest} are needed"
                )
            self._image = (index, image)
        return self._image[1]

    def _degrade(self, gt: Tensor, case: Case, generator: torch.Generator) -> Tensor:
        scale = self.opt["scale"]
        if case.kind == "classic":
            return classic_degrade(gt, case.task, scale, self.opt["kernel_size"], generator)
        degradation = {"photo": PhotoDegradation, "realesrgan": RealESRGANDegradation}[case.kind](scale=scale)
        task = degradation.sample(generator) if case.task is None else case.task
        return degradation.apply(gt, task, generator)

    def __getitem__(self, index: int) -> dict:
        """Return `gt` (3, H, W), `lq` (3, H / scale, W / scale), `lq_path` (the name), `kernel` (label), `task`."""
        image_index, case_index = divmod(index, len(self.cases))
        scale, case, name = self.opt["scale"], self.cases[case_index], self.names[image_index]
        image = centre(to_tensor(self._read(image_index)), self.opt.get("max_side"))
        gt = image[:, : image.shape[1] // scale * scale, : image.shape[2] // scale * scale]
        if self.lr_set:
            file = lr_file(case.label, name)
            lq = to_tensor(self.lr_set.read(file)).contiguous()  # as degraded ones: convolutions round by memory layout
            if tuple(scale * side for side in lq.shape[1:]) != gt.shape[1:]:
                raise ImageError(
                    f"{self.lr_set.root}/{file}: {lq.shape[1]}x{lq.shape[2]} pixels, but {name} has "
                    f"{gt.shape[1]}x{gt.shape[2]} and scale is {scale}"
                )
        else:
            generator = torch_generator(0, f"noise {PurePosixPath(name).with_suffix('')}", case_index)
            lq = self._degrade(gt[None], case, generator)[0]
        return {"gt": gt, "lq": lq, "lq_path": name, "kernel": case.label, "task": case.task}
