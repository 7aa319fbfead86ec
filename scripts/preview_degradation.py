"""A picture of what an option file's degradation does to a photograph, with the parameters of each draw beneath.

    python scripts/preview_degradation.py -opt options/train_teacher_x4.yml -o grid.png [-i photo.png] [--tasks 11]

The tasks are the first that training with this seed draws.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import textwrap

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import mrda_arch  # noqa: F401  (these imports register what option files name)
import mrda_loss  # noqa: F401
from mrda_data.degradation import Task, build_degradation
from mrda_data.images import ImageError, read_rgb8
from mrda_data.sources import BundledSource
from mrda_options import read_options
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run
from mrda_utils.files import written_whole
from mrda_utils.seeding import torch_generator

SIDE = 256  # pixels of the photograph that are shown, around its centre
COLUMNS, GAP, LINE, CHARACTERS = 4, 8, 13, 44


def main(argv: list[str] | None = None) -> None:
    """Draw tasks, degrade the photograph by each, write the picture."""
    parser = argument_parser(__doc__)
    parser.add_argument("-opt", required=True, help="option file of a stage")
    parser.add_argument("-i", "--input", help="photograph; a bundled one by default")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--seed", type=int, help="by default the option file's manual_seed")
    parser.add_argument("--tasks", type=int, default=11, help="number of draws")
    args = parser.parse_args(argv)
    if args.tasks < 1:
        raise OptionError(f"--tasks {args.tasks}: must be at least 1")
    if args.seed is not None and args.seed < 0:
        raise OptionError(f"--seed {args.seed}: must be at least 0")
    if args.output.suffix.lower() != ".png":
        raise OptionError(f"-o {args.output}: must end in .png")

    opt, _ = read_options(args.opt, True, [])
    seed = opt["manual_seed"] if args.seed is None else args.seed
    gt = _read(args.input, opt["scale"])
    degradation = build_degradation(opt["degradation"], opt["scale"])
    tiles = [(gt, ["ground truth"])]
    for number in range(args.tasks):
        generator = torch_generator(seed, "task", number)
        task = degradation.sample(generator)
        try:
            tiles.append((degradation.apply(gt, task, generator), [f"task {number}", *_in_words(task)]))
        except ValueError as error:
            raise ImageError(f"{args.input}: {error}") from error
    with written_whole(args.output) as file:
        _grid(tiles).save(file, "PNG")
    print(f"{args.output}: {args.tasks} draws")  # noqa: T201


def _read(path: str | None, scale: int) -> torch.Tensor:
    """Central part of the photograph, (1, 3, H, W) in [0, 1], the sides multiples of `scale`."""
    image = BundledSource("test").read(0) if path is None else read_rgb8(path)
    height, width = (min(side, SIDE) // scale * scale for side in image.shape[:2])
    if not height or not width:
        raise ImageError(f"{path}: {image.shape[0]}x{image.shape[1]} pixels, at least {scale}x{scale} are needed")
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    part = torch.from_numpy(image[top : top + height, left : left + width].copy())
    return part.permute(2, 0, 1)[None].float() / 255


def _in_words(task: Task) -> list[str]:
    """A line for each round of the degradation: choices by their name, flags that are set, numbers under their name."""
    rounds: dict[str, list[str]] = {"": [], "second": [], "final": []}
    for key, value in task.items():
        name = next(name for name in ("second", "final", "") if key.startswith(name))
        key = key.removeprefix(f"{name}_")
        if value is not False:
            rounds[name].append(
                str(value if isinstance(value, str) else key if value is True else f"{key} {value:.3g}")
            )
    return [f"{name}: {', '.join(words)}".removeprefix(": ") for name, words in rounds.items() if words]


def _grid(tiles: list[tuple[torch.Tensor, list[str]]]) -> Image.Image:
    """Images (1, 3, h, w), enlarged to the size of the first without smoothing, above their paragraphs."""
    font = ImageFont.load_default(11)
    texts = [[line for part in parts for line in textwrap.wrap(part, CHARACTERS)] for _, parts in tiles]
    cell_width, cell_height = SIDE + GAP, SIDE + GAP + LINE * max(map(len, texts))
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    canvas = Image.new("RGB", (columns * cell_width + GAP, rows * cell_height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    height, width = tiles[0][0].shape[-2:]
    for index, ((image, _), lines) in enumerate(zip(tiles, texts, strict=True)):
        left, top = GAP + index % columns * cell_width, GAP + index // columns * cell_height
        pixels = (image[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
        canvas.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (left, top))
        draw.multiline_text((left, top + SIDE), "\n".join(lines), fill="black", font=font, spacing=2)
    return canvas


if __name__ == "__main__":
    run(main)
