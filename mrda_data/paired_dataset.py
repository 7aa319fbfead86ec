"""LR images with their ground truth, both as a camera or a challenge gave them."""

from __future__ import annotations

from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from mrda_data.images import ImageError, to_tensor
from mrda_data.pairs import pair_names
from mrda_data.sources import check_source, first_images, open_source


@DATASET_REGISTRY.register()
class PairedDataset(Dataset):
    """Whole images of unknown degradation, each with its ground truth: RealSR, NTIRE 2020 Track 1.

    Args:
        opt: `dataroot_gt` and `dataroot_lq`, what `open_source` opens; `scale`; optional `lq_template`, see
            `pair_names`, and `max_images`.

    `sizes` has the (height, width) of the HR images; `parts` the HR and the LR source, each with the indices of its
    images in the order of the pairs.

    Raises:
        ImageError: no image, one that cannot be read or has no partner, sizes of a pair that do not belong together, or
            an option out of range.
    """

    def __init__(self, opt: dict) -> None:
        self.opt = opt
        self.gt, self.lq = (open_source(opt[key]) for key in ("dataroot_gt", "dataroot_lq"))
        try:
            pairs = pair_names(self.gt.names, self.lq.names, opt.get("lq_template"))
        except ImageError as error:
            raise ImageError(f"{opt['name']}: {error}") from error
        self.pairs = first_images(pairs, opt)
        self.sizes = self._check_sizes()
        places = ({name: index for index, name in enumerate(source.names)} for source in (self.gt, self.lq))
        columns = zip(*self.pairs, strict=True)
        indices = ([place[name] for name in names] for place, names in zip(places, columns, strict=True))
        self.parts = list(zip((self.gt, self.lq), indices, strict=True))
        self.left_out: list[str] = []  # none: each image needs its partner

    def _check_sizes(self) -> set[tuple[int, int]]:
        """Decode all images; LR ones must be smaller by the scale."""
        gt_names, lq_names = (set(names) for names in zip(*self.pairs, strict=True))
        gt_sizes = {self.gt.names[i]: size for i, size in check_source(self.gt, 1, gt_names).items()}
        lq_sizes = {self.lq.names[i]: size for i, size in check_source(self.lq, 1, lq_names).items()}
        for gt_name, lq_name in self.pairs:
            gt_size, lq_size = gt_sizes[gt_name], lq_sizes[lq_name]
            if tuple(self.opt["scale"] * side for side in lq_size) != gt_size:
                raise ImageError(
                    f"{self.opt['name']}: {lq_name} has {lq_size[0]}x{lq_size[1]} pixels and its ground truth "
                    f"{gt_name} {gt_size[0]}x{gt_size[1]}, which is not {self.opt['scale']} times as much"
                )
        self.sr_sizes = {lq_name: gt_sizes[gt_name] for gt_name, lq_name in self.pairs}  # by the LR image's name
        return set(gt_sizes.values())

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        """Return `gt` (3, sH, sW) and `lq` (3, H, W) in [0, 1], `lq_path` (the LR image's name) and `kernel`."""
        gt, lq = (to_tensor(source.read(indices[index])) for source, indices in self.parts)
        return {"gt": gt, "lq": lq, "lq_path": self.pairs[index][1], "kernel": "unknown"}
