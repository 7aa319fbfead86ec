"""Training crops of ground-truth images."""

from __future__ import annotations

import math

import numpy as np
import torch
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from mrda_data.images import ImageError
from mrda_data.pixel_cache import cached
from mrda_data.sources import ImageSource, JoinedSource, check_source, first_ten, open_source
from mrda_data.transfer import send
from mrda_utils.seeding import numpy_generator


@DATASET_REGISTRY.register()
class GTDataset(Dataset):
    """Random crops, flips and rotations; item `n` is a pure function of the seed and of the sample number `n`.

    Sample numbers run on without end: every image is used once in each stretch of `len(self)` samples, in an order
    that changes from stretch to stretch.

    Args:
        opt: `dataroot_gt` a folder, an LMDB or `bundled:train`, or a list of these, `gt_size` pixels (`degrade_size` if
            that is given), `use_hflip` both flips, `use_rot` rotation by 90 degrees, `manual_seed`; optional `contrast`
            [low, high], a factor of each crop's own, `skip_corrupt`, which leaves unusable images out, and `cache` and
            `cache_folder`, see `cached`.

    `parts` has each folder's source with the indices of its images.

    Raises:
        ImageError: an image that cannot be read or is smaller than a crop; with `skip_corrupt`, if all are so.
        UserError: no room for the cache.
    """

    def __init__(self, opt: dict) -> None:
        self.opt = opt
        folders = opt["dataroot_gt"] if isinstance(opt["dataroot_gt"], list) else [opt["dataroot_gt"]]
        cache = opt.get("cache", "none"), opt.get("cache_folder")
        parts = {folder: cached(open_source(folder), *cache) for folder in folders}
        self.source = parts[folders[0]] if len(parts) == 1 else JoinedSource(parts)
        self.size = opt.get("degrade_size") or opt["gt_size"]
        left_out: list[str] | None = [] if opt.get("skip_corrupt") else None
        found: dict[int, tuple[int, int]] = {}
        self.parts: list[tuple[ImageSource, list[int]]] = []
        first = 0
        for folder, part in parts.items():
            usable = check_source(part, self.size, left_out=left_out)
            found |= {first + index: size for index, size in usable.items()}
            self.parts.append((part, list(usable)))
            first += len(part.names)
            if ignored := getattr(part, "left_out", ""):
                get_root_logger().info("%s: %s", folder, ignored)
        self.indices, self.sizes = list(found), list(found.values())
        if left_out:
            message = "%d of %d images left out (skip_corrupt): %s"
            get_root_logger().warning(message, len(left_out), len(self.source.names), "; ".join(first_ten(left_out)))
        self._lost: set[int] = set()  # images that could not be used any more, with `skip_corrupt`
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return len(self.indices)

    def _image_index(self, sample: int) -> int:
        epoch, position = divmod(sample, len(self))
        if self._order[0] != epoch:
            order = numpy_generator(self.opt["manual_seed"], "image order", epoch).permutation(len(self))
            self._order = (epoch, order)
        return self.indices[self._order[1][position]]

    def _image(self, sample: int) -> np.ndarray:
        """The image of a sample; with `skip_corrupt` the next usable one, if it has been lost since."""
        for following in range(len(self)):
            index = self._image_index(sample + following)
            try:
                return self._large_enough(self.source.read(index), index)
            except ImageError as error:
                if not self.opt.get("skip_corrupt"):
                    raise
                if index not in self._lost:
                    self._lost.add(index)
                    message = "%s; the next image takes its place (skip_corrupt, %d lost in this process)"
                    get_root_logger().warning(message, error, len(self._lost))
        raise ImageError(f"{self.opt['dataroot_gt']}: none of its images can be used any more")

    def _large_enough(self, image: np.ndarray, index: int) -> np.ndarray:
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            raise ImageError(
                f"{self.source.names[index]}: {height}x{width} pixels, fewer than when the training began; crops have "
                f"{self.size}"
            )
        return image

    def __getitem__(self, sample: int) -> dict[str, Tensor | int]:
        """Return `gt` (3, size, size) uint8 RGB, `sample`, its number, and with `contrast` that of this crop.

        `crops` makes of a batch of them what is trained on: on the device, which gets a quarter of the bytes.
        """
        image = self._image(sample)
        rng = numpy_generator(self.opt["manual_seed"], "crop", sample)
        size = self.size
        top = rng.integers(image.shape[0] - size + 1)
        left = rng.integers(image.shape[1] - size + 1)
        flip_x, flip_y, transpose = rng.random(3) < 0.5
        gt = image[top : top + size, left : left + size]
        if self.opt["use_hflip"]:
            gt = gt[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        if self.opt["use_rot"] and transpose:
            gt = gt.transpose(1, 0, 2)
        item = {"gt": torch.from_numpy(np.ascontiguousarray(gt.transpose(2, 0, 1))), "sample": sample}
        if contrast := self.opt.get("contrast"):
            item["contrast"] = math.exp(rng.uniform(*np.log(contrast)))
        return item


def crops(batch: dict[str, Tensor], device: torch.device) -> Tensor:
    """Crops of a batch of GTDataset's items on `device`: (N, 3, H, W) RGB in [0, 1], torch's default dtype.

    Each is changed by its own `contrast`, where the batch has that: a factor about the mean of the crop.
    """
    # a tensor on the device: by a number, CUDA multiplies by 1/255, which rounds otherwise than the CPU
    white = torch.full((), 255.0, dtype=torch.float32, device=device)
    gt = batch["gt"].to(device, non_blocking=True) / white
    if "contrast" in batch:
        factor, mean = send(batch["contrast"], device, gt.dtype).view(-1, 1, 1, 1), gt.mean((1, 2, 3), keepdim=True)
        gt = ((gt - mean) * factor + mean).clamp(0, 1)
    return gt.to(torch.get_default_dtype())
