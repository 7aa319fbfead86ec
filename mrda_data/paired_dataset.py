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
        ImageError: no image, one that cannot be read, or not as many LR as HR images.
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
        for source, names in zip((self.gt, self.lq), zip(*self.pairs, strict=True), strict=True):
            check_source(source, 1, list(names))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        """Return `gt` (3, sH, sW) and `lq` (3, H, W) in [0, 1], `lq_path` (the LR image's name) and `kernel`.

        Raises:
            ImageError: the sizes of a pair do not belong together.
        """
        gt, lq = to_tensor(self.gt.read(index)), to_tensor(self.lq.read(index))
        gt_name, lq_name = self.pairs[index]
        scale = self.opt["scale"]
        if tuple(scale * side for side in lq.shape[1:]) != gt.shape[1:]:
            raise ImageError(
                f"{self.opt['name']}: {lq_name} has {lq.shape[1]}x{lq.shape[2]} pixels and its ground truth {gt_name} "
                f"{gt.shape[1]}x{gt.shape[2]}, which is not {scale} times as much; pairs go by the order of their names"
            )
        return {"gt": gt, "lq": lq, "lq_path": lq_name, "kernel": "unknown"}
