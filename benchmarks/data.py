"""How fast training crops are read: whole photographs, sub-images, an LMDB of these, and what a cache makes of them.

    python benchmarks/data.py [--images 12] [--repeats 5]

The photographs are the bundled ones, enlarged to DIV2K's usual size, with a little noise in place of fine detail. All
kinds are read in turns in one run, by one thread; the files are in memory (the page cache), so what is compared is
decoding, not the disk. `ram` and `mmap` are those of `datasets.train.cache`.
"""

from __future__ import annotations

import mrda_utils.openmp  # noqa: F401  (before torch)

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from machine import interleaved, publish

from mrda_data import GTDataset
from mrda_data.sources import BundledSource
from mrda_utils.arguments import argument_parser

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH, GT_SIZE, CROPS = 1356, 2040, 256, 96


def make_photographs(folder: Path, count: int) -> None:
    """Write `count` PNG files of HEIGHT x WIDTH pixels."""
    source, rng = BundledSource("train"), np.random.default_rng(0)
    for number in range(count):
        image = cv2.resize(source.read(number % len(source.names)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        image = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:04d}.png"), image[..., ::-1])


class Kind(NamedTuple):
    """One way to store the photographs."""

    dataset: GTDataset
    folder: Path
    """Of the files, the cache's where there is one."""

    def size(self) -> int:
        """Bytes of all photographs, in files or in memory."""
        if self.dataset.opt.get("cache") == "ram":
            return 3 * HEIGHT * WIDTH * len(self.dataset)
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


def make_kinds(folder: Path, count: int) -> dict[str, Kind]:
    """Write `count` photographs into `folder`, in every kind."""
    (folder / "HR").mkdir()
    make_photographs(folder / "HR", count)
    script = [sys.executable, str(ROOT / "scripts/prepare_data.py"), "-i", f"{folder}/HR", "--lmdb"]
    folders = {"whole photographs": folder / "HR"}
    for size, step in ((480, 240), (480, 480)):
        output = folder / f"HR_sub_{step}"
        command = [*script, "-o", str(output), "--crop_size", str(size), "--step", str(step)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        folders[f"sub-images {size}, step {step}"] = output
        folders[f"sub-images {size}, step {step}, LMDB"] = output.with_name(f"{output.name}.lmdb")
    options = {"gt_size": GT_SIZE, "use_hflip": True, "use_rot": True, "manual_seed": 0}
    kinds = {name: Kind(GTDataset({**options, "dataroot_gt": str(path)}), path) for name, path in folders.items()}
    for cache in ("ram", "mmap"):
        where = {"dataroot_gt": f"{folder}/HR", "cache": cache, "cache_folder": str(folder / cache)}
        kinds[f"whole photographs, {cache}"] = Kind(GTDataset({**options, **where}), folder / cache)
    return kinds


def main() -> None:
    """Parse the command line and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=12, help="photographs")
    parser.add_argument("--repeats", type=int, default=5, help=f"timed runs of {CROPS} crops each")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_kinds(Path(folder), args.images)
        reads = {name: lambda s=kind.dataset: [s[i] for i in range(CROPS)] for name, kind in kinds.items()}
        seconds = interleaved(reads, args.repeats)
        rows = [
            {
                "kind": name,
                "images from one": len(kind.dataset) // args.images,
                "MB from one": kind.size() / args.images / 1e6,
                f"crops of {GT_SIZE} a second": CROPS / seconds[name],
            }
            for name, kind in kinds.items()
        ]
    publish(rows, args.json)


if __name__ == "__main__":
    main()
