"""LR images without ground truth."""

from __future__ import annotations

from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mrda_data.images import centre, to_tensor
from mrda_data.sources import check_source, first_images, open_source


@DATASET_REGISTRY.register()
class LQDataset(Dataset):
    """Whole LR images of unknown degradation; those that cannot be read are no items, `left_out` has a line for each.

    Args:
        opt: `dataroot_lq` what `open_source` opens; optional `max_images` and `max_side` (pixels, a central crop).

    `sr_sizes` has the (height, width) of the SR images by name, `sizes` those that there are.

    Raises:
        ImageError: no image that can be read, or `max_images` below 1.
    """

    def __init__(self, opt: dict) -> None:
        self.opt = opt
        self.source = open_source(opt["dataroot_lq"])
        self.left_out: list[str] = []
        found = check_source(self.source, 1, first_images(self.source.names, opt), self.left_out)
        self.indices, self.names = list(found), [self.source.names[i] for i in found]
        self.sr_sizes = {
            self.source.names[i]: tuple(opt["scale"] * min(n, opt.get("max_side") or n) for n in size)
            for i, size in found.items()
        }
        self.sizes = set(self.sr_sizes.values())

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        """Return `lq` (3, H, W) float32 RGB in [0, 1], `lq_path` (the name) and `kernel` ("unknown")."""
        lq = centre(to_tensor(self.source.read(self.indices[index])), self.opt.get("max_side"))
        return {"lq": lq, "lq_path": self.names[index], "kernel": "unknown"}
