"""The pictures of docs/gallery.md: parts of bundled photographs, degraded, and what programs make of them.

    python scripts/gallery.py -o docs/gallery [--sr "Real-ESRGAN x4plus=folder" ...]
    python scripts/gallery.py --save-lr lr/

The second writes the degraded photographs for another program, which is to write its results under the same names into
a folder of its own; --sr shows them. Titles give PSNR of the whole photograph (Y, border of 4 pixels left out).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mrda_data.benchmark_dataset import BenchmarkDataset
from mrda_data.images import read_rgb8
from mrda_eval.panel import side_by_side
from mrda_inference.upscaler import MODELS, student, to_pixels
from mrda_metric import metrics_of
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run
from mrda_utils.files import written_whole
from mrda_utils.resize import imresize

SCALE, SIDE = 4, 192  # pixels of the SR image that a picture shows
COLUMNS = 4
(PSNR,) = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": SCALE, "test_y_channel": True}})


class Row(NamedTuple):
    """One photograph under one degradation, and the part of it that is shown."""

    split: str
    photo: str
    case: str
    """Of protocol `photo`."""
    left: int
    top: int
    """HR pixels, multiples of SCALE."""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{Path(self.photo).stem}_{self.case}.png"


ROWS = (
    Row("test", "chelsea.png", "clean", 120, 60),
    Row("test", "flower.jpg", "blur2.8", 240, 120),
    Row("train", "astronaut.png", "blur1.6_noise10", 140, 40),
    Row("train", "china.jpg", "jpeg90", 240, 100),
    Row("train", "coffee.png", "jpeg60", 200, 80),
    Row("test", "chelsea.png", "jpeg30", 100, 60),
    Row("test", "rocket.jpg", "noise15_jpeg70", 220, 200),
    Row("train", "motorcycle_left.png", "messenger", 240, 180),
    Row("train", "china.jpg", "messenger", 60, 180),
    Row("train", "motorcycle_left.png", "realesrgan", 480, 200),
)


def main(argv: list[str] | None = None) -> None:
    """Degrade, restore, draw a picture a row."""
    parser = argument_parser(__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("-o", "--output", type=Path, help="folder for the pictures")
    task.add_argument("--save-lr", type=Path, metavar="FOLDER", help="write the degraded photographs instead")
    parser.add_argument("--sr", nargs="+", default=[], metavar="NAME=FOLDER", help="SR images of other programs")
    args = parser.parse_args(argv)
    programs = dict(map(_named_folder, args.sr))
    folder = args.output or args.save_lr
    folder.mkdir(parents=True, exist_ok=True)
    restorers = {name: student(model.weights).eval() for name, model in MODELS.items()} if args.output else {}
    for row in ROWS:
        item = _item(row)
        if args.save_lr:
            _write(Image.fromarray(_pixels(item["lq"])), folder / row.name, "PNG")
            continue
        shown = {"bicubic": _pixels(imresize(item["lq"][None], SCALE)[0])}
        shown |= {name: _of_program(path / row.name, item["gt"]) for name, path in programs.items()}
        for name, net in restorers.items():
            with torch.inference_mode():
                shown[f"MRDA {name}"] = _pixels(net(item["lq"][None])[0])
        _write(_picture(row, item, shown), (folder / row.name).with_suffix(".webp"), "WEBP")
    print(f"{folder}: {len(ROWS)} files")  # noqa: T201


def _named_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.rpartition("=")
    if not equals or not Path(folder).is_dir():
        raise OptionError(f"--sr {text}: no folder {folder}; write NAME=FOLDER")
    return name, Path(folder)


def _item(row: Row) -> dict:
    """The photograph and what the degradation made of it, as the tests of protocol `photo` have them."""
    data = BenchmarkDataset(
        {
            "name": "Gallery",
            "dataroot_gt": f"bundled:{row.split}",
            "protocol": "photo",
            "scale": SCALE,
            "kernel_size": 21,
        }
    )
    cases = [case.label for case in data.cases]
    return data[data.names.index(row.photo) * len(cases) + cases.index(row.case)]


def _pixels(image: Tensor) -> np.ndarray:
    return to_pixels(image[None], np.uint8)


def _of_program(path: Path, gt: Tensor) -> np.ndarray:
    image = read_rgb8(path)
    if image.shape[:2] != gt.shape[1:]:
        sizes = f"{image.shape[0]}x{image.shape[1]} pixels, the photograph has {gt.shape[1]}x{gt.shape[2]}"
        raise OptionError(f"--sr {path}: {sizes}")
    return image


def _picture(row: Row, item: dict, shown: dict[str, np.ndarray]) -> Image.Image:
    """LR, what each program made of it, and the photograph, at 100 %."""
    gt = _pixels(item["gt"])
    titled = {"LR": _pixels(item["lq"]).repeat(SCALE, 0).repeat(SCALE, 1)}
    for name, image in shown.items():
        value = PSNR.measure(image[..., ::-1], gt[..., ::-1], row.name)
        titled[f"{name} {value:{PSNR.format}}"] = image
    titled["photograph"] = gt
    parts = {name: image[row.top : row.top + SIDE, row.left : row.left + SIDE, ::-1] for name, image in titled.items()}
    items = list(parts.items())
    lines = [
        side_by_side(dict(items[first : first + COLUMNS]), None, height=SIDE) for first in range(0, len(items), COLUMNS)
    ]
    picture = Image.new("RGB", (lines[0].width, sum(line.height for line in lines)), "white")
    for number, line in enumerate(lines):
        picture.paste(line, (0, number * line.height))
    return picture


def _write(picture: Image.Image, path: Path, kind: str) -> None:
    with written_whole(path) as file:
        picture.save(file, kind, quality=92, method=6)


if __name__ == "__main__":
    run(main)
