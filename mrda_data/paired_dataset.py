"""LR images with their ground truth, both as a camera or a challenge gave them."""

from __future__ import annotations

from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mrda_data.images import ImageError, to_tensor
from mrda_data.sources import check_source, open_source


@DATASET_REGISTRY.register()
class PairedDataset(Dataset):
    """Whole images of unknown degradation, each with its ground truth: RealSR, NTIRE 2020 Track 1.

    Such sets name the two images of a pair differently, so pairs go by the order of their names.

    Args:
        opt: `dataroot_gt` and `dataroot_lq`, what `open_source` opens; `scale`; optional `max_images`.

    Raises:
        ImageError: no image, one that cannot be read, not as many LR as HR images, or sizes of a pair that do not
            belong together.
    """

    def __init__(self, opt: dict) -> None:
        self.opt = opt
        self.gt, self.lq = (open_source(opt[key]) for key in ("dataroot_gt", "dataroot_lq"))
        if len(self.gt.names) != len(self.lq.names):
            raise ImageError(
                f"{opt['dataroot_gt']} has {len(self.gt.names)} images and {opt['dataroot_lq']} {len(self.lq.names)}: "
                "each needs its partner"
            )
        self.pairs = list(zip(self.gt.names, self.lq.names, strict=True))[: opt.get("max_images")]
        gt_names, lq_names = zip(*self.pairs, strict=True)
        gt_sizes, lq_sizes = check_source(self.gt, 1, list(gt_names)), check_source(self.lq, 1, list(lq_names))
        for (gt_name, lq_name), gt_size, lq_size in zip(self.pairs, gt_sizes.values(), lq_sizes.values(), strict=True):
            if tuple(opt["scale"] * side for side in lq_size) != gt_size:
                raise ImageError(
                    f"{opt['name']}: {lq_name} has {lq_size[0]}x{lq_size[1]} pixels and its ground truth {gt_name} "
                    f"{gt_size[0]}x{gt_size[1]}, which is not {opt['scale']} times as much; pairs go by the order of "
                    "their names"
                )
        self.left_out: list[str] = []  # a pair too few would shift all others
        self.sr_sizes = dict(zip(lq_names, gt_sizes.values(), strict=True))  # (height, width) by the LR image's name
        self.sizes = set(gt_sizes.values())

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        """Return `gt` (3, sH, sW) and `lq` (3, H, W) in [0, 1], `lq_path` (the LR image's name) and `kernel`."""
        gt, lq = to_tensor(self.gt.read(index)), to_tensor(self.lq.read(index))
        return {"gt": gt, "lq": lq, "lq_path": self.pairs[index][1], "kernel": "unknown"}
