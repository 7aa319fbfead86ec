"""What tiles cost in PSNR, with the representation of the whole image and with one of their own.

    python benchmarks/tiling.py [-i datasets/DIV2K/HR] [--weights shipped:mrda_lite_x4_student]

Programs that load networks of every kind often cut the input into tiles of 512 pixels with 32 of overlap, and each tile
then computes a representation of its own; `mrda_inference.upscale` computes it once. LR images larger than 512 pixels
are cut so, smaller ones into tiles of 128; those that fit into one tile are left out. `upscale` cuts into equal tiles;
others go on by 480 (or 96) pixels and leave to the last tile what remains, be it a strip: both are measured. PSNR on Y,
border of `scale`.
"""

from __future__ import annotations

import mrda_utils.openmp  # noqa: F401  (before torch)

import json
from itertools import groupby, product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from machine import describe
from tabulate import tabulate
from torch import Tensor

from mrda_arch import MRDANet
from mrda_data import BenchmarkDataset
from mrda_eval.evaluation import Item, Restorer, evaluate
from mrda_inference import network_functions, upscale
from mrda_inference.upscaler import MODELS, student
from mrda_metric import metrics_of
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import UserError, run

LARGE, SMALL, OVERLAP = 512, 128, 32  # LR pixels


def tile_of(sides: tuple[int, ...]) -> int:
    """Side of the tiles that an LR image is cut into."""
    return LARGE if max(sides) > LARGE else SMALL


def steps(size: int, tile: int) -> list[tuple[int, int]]:
    """Cover [0, size) by intervals of `tile`, the last of which has what remains; neighbours share OVERLAP."""
    if size <= tile:
        return [(0, size)]
    return [(start, min(start + tile, size)) for start in range(0, size - OVERLAP, tile - OVERLAP)]


def in_steps(net: MRDANet, lq: Tensor, tile: int) -> Tensor:
    """Tiles as other programs make them: each by itself, with ramps as wide as the overlap along all its sides."""
    total = lq.new_zeros(1, 3, *(net.upscale * side for side in lq.shape[-2:]))
    weight = torch.zeros_like(total)

    def ramp(start: int, stop: int) -> Tensor:
        position = torch.arange(1.0, net.upscale * (stop - start) + 1)
        return (torch.minimum(position, position.flip(0)) / (net.upscale * OVERLAP)).clamp(max=1)

    for rows, columns in product(*(steps(side, tile) for side in lq.shape[-2:])):
        part = (..., *(slice(net.upscale * start, net.upscale * stop) for start, stop in (rows, columns)))
        share = ramp(*rows)[:, None] * ramp(*columns)
        total[part] += share * net(lq[..., slice(*rows), slice(*columns)])
        weight[part] += share
    return total / weight


def restorers(weights: str) -> tuple[dict[str, Restorer], int]:
    """The ways to restore an image, and the scale."""
    net = student(weights)
    functions = network_functions(net)

    def whole(item: Item) -> Tensor:
        return upscale(item.lq, *functions, net.upscale)

    def shared(item: Item) -> Tensor:
        return upscale(item.lq, *functions, net.upscale, tile=tile_of(item.lq.shape[-2:]), overlap=OVERLAP)

    def equal(item: Item) -> Tensor:
        def restore(part: Tensor, _: Tensor) -> Tensor:
            return net(part)

        return upscale(
            item.lq, torch.empty_like, restore, net.upscale, tile=tile_of(item.lq.shape[-2:]), overlap=OVERLAP
        )

    def stepped(item: Item) -> Tensor:
        return in_steps(net, item.lq, tile_of(item.lq.shape[-2:]))

    return {"whole": whole, "shared": shared, "equal": equal, "stepped": stepped}, net.upscale


class Measured(NamedTuple):
    """PSNR of one LR image under one kernel."""

    image: str
    size: str
    """Width x height."""
    tile: int
    psnr: dict[str, float]
    """By method."""


def measure(methods: dict[str, Restorer], dataset: BenchmarkDataset, scale: int) -> list[Measured]:
    """PSNR of the LR images that do not fit into one tile."""
    psnr = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": scale, "test_y_channel": True}})
    measured = []
    for restored in evaluate(methods, dataset, psnr, torch.device("cpu")):
        height, width = restored.lq.shape[:2]
        if max(height, width) > (tile := tile_of((height, width))):
            values = {row.method: row.value for row in restored.rows}
            measured.append(Measured(restored.item["lq_path"], f"{width}x{height}", tile, values))
    return measured


def losses(measured: list[Measured]) -> list[tuple]:
    """A row a photograph, over its kernels: PSNR of the whole, and what tiles lose against it; at the end the means."""
    table = []
    for place, group in groupby(measured, key=lambda entry: entry[:3]):
        values = [entry.psnr for entry in group]
        lost = [[v["whole"] - v[method] for v in values] for method in ("shared", "equal", "stepped")]
        row = [fmean(v["whole"] for v in values), fmean(lost[0])]
        table.append((*place, *row, *(f(loss) for loss in lost[1:] for f in (fmean, max))))
    columns = list(zip(*table, strict=True))[3:]
    summaries = (fmean, fmean, fmean, max, fmean, max)
    return [*table, ("mean", "", "", *(f(column) for f, column in zip(summaries, columns, strict=True)))]


def main() -> None:
    """Parse the command line and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "-i", "--input", default="bundled:test", help="folder of HR photographs; bundled ones by default"
    )
    parser.add_argument("--weights", default=MODELS["blur"].weights, help="of a student")
    parser.add_argument("--protocol", default="gaussian8", help="degradations, by a name of mrda_data/protocols.yml")
    parser.add_argument("--max_images", type=int, help="use the first images only")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    methods, scale = restorers(args.weights)
    options = {
        "name": "tiling",
        "dataroot_gt": args.input,
        "protocol": args.protocol,
        "scale": scale,
        "kernel_size": 21,
    }
    dataset = BenchmarkDataset(options | ({"max_images": args.max_images} if args.max_images else {}))
    measured = measure(methods, dataset, scale)
    if not measured:
        raise UserError(f"-i {args.input}: no photograph whose LR image is larger than {SMALL} pixels")
    table = losses(measured)
    headers = ("photograph", "LR", "tile", "whole, dB", "loss, one IDR")
    headers += tuple(f"{kind}, {cut}" for cut in ("equal tiles", "in steps") for kind in ("own IDRs", "worst kernel"))
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(), "columns": headers, "rows": table}, indent=2) + "\n")
    print(describe())  # noqa: T201
    print(tabulate(table, headers=headers, tablefmt="github", floatfmt=("", "", "", ".2f", *[".4f"] * 5)))  # noqa: T201


if __name__ == "__main__":
    run(main)
