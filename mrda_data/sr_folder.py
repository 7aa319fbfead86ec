"""SR images that another program made of an LR set."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from torch import Tensor
from torch.utils.data import Dataset

from mrda_data.images import SUFFIXES, ImageError, file_image_size, read_rgb8, to_tensor


class SRFolder:
    """`<root>/<data set>/<kernel>/<image>`, as `test.py --save_lr` has its LR images; names agree but for the suffix.

    Sets whose kernels are unknown have no folders for them.

    Args:
        name: of the method, for messages.
        root: folder.
    """

    def __init__(self, name: str, root: str) -> None:
        self.name, self.root = name, Path(root)

    def check(self, dataset: Dataset) -> None:
        """Check that there is an image of its own and of the right size for each item of a test set, without decoding.

        Raises:
            ImageError: names the first that disagrees.
        """
        cases = [case.label for case in dataset.cases] if hasattr(dataset, "cases") else ["unknown"]
        taken: dict[Path, str] = {}
        for image, size in dataset.sr_sizes.items():
            for kernel in cases:
                path = self._find(dataset.opt["name"], image, kernel)
                if (other := taken.setdefault(path, image)) != image:
                    raise ImageError(
                        f"baselines.{self.name}.sr: {path} would be that of {other} and of {image}; rename one"
                    )
                found = file_image_size(path)
                if found != size:
                    raise ImageError(
                        f"baselines.{self.name}.sr: {path}: {found[0]}x{found[1]} pixels, but {image} has "
                        f"{size[0]}x{size[1]} at scale {dataset.opt['scale']}"
                    )

    def read(self, dataset: str, image: str, kernel: str) -> Tensor:
        """SR image (1, 3, H, W) in [0, 1] of an item."""
        return to_tensor(read_rgb8(self._find(dataset, image, kernel)))[None]

    def _find(self, dataset: str, image: str, kernel: str) -> Path:
        folder = self.root / dataset if kernel == "unknown" else self.root / dataset / kernel
        stem = folder / PurePosixPath(image).with_suffix("")
        for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
            if (path := stem.with_name(stem.name + suffix)).is_file():
                return path
        raise ImageError(
            f"baselines.{self.name}.sr: {stem}.png is missing; it is the SR image of what 'test.py ... --save_lr' "
            "wrote under the same name"
        )
