"""Draw the paper's Fig. 7 to 10 for the networks of a test's option file; PNG, PDF and CSV.

    python scripts/figures.py idr -opt options/demo/test_gaussian8_x4.yml --baseline experiments/.../net_g_latest.pth
    python scripts/figures.py rdam -opt options/demo/test_gaussian8_x4.yml
    python scripts/figures.py adaptation -opt options/demo/test_gaussian8_x4.yml --mln bicubic=experiments/...pth
    python scripts/figures.py steps --values results/ablation/values.csv

The photographs are the bundled ones unless --images names a folder; docs/figures.md says what each figure shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import torch

import mrda_loss  # noqa: F401  (registers what option files name)
from mrda_pipeline.figures.adaptation import draw_adaptation, draw_steps
from mrda_pipeline.figures.idr import draw_idr
from mrda_pipeline.figures.rdam import draw_rdam
from mrda_pipeline.figures.setting import pyplot, read_setting
from mrda_utils.arguments import HelpFormatter, argument_parser
from mrda_utils.errors import run

ROOT = Path(__file__).resolve().parents[1]
FIGURES = {
    "idr": (draw_idr, "representations in t-SNE's plane, and accuracy of nearest neighbours (Fig. 7, 8)"),
    "rdam": (draw_rdam, "modulation maps of the student (Fig. 10)"),
    "adaptation": (draw_adaptation, "PSNR over the steps of adaptation of one teacher (Fig. 9a)"),
    "steps": (draw_steps, "PSNR over the steps that teacher and student were trained with (Fig. 9b)"),
}


def main(argv: list[str] | None = None) -> None:
    """Draw one figure."""
    parser = argument_parser(__doc__)
    commands = parser.add_subparsers(required=True, metavar="FIGURE")
    for name, (draw, about) in FIGURES.items():
        command = commands.add_parser(name, help=about, description=about, formatter_class=HelpFormatter)
        command.set_defaults(draw=draw)
        if name == "steps":
            command.add_argument("--values", type=Path, required=True, help="values.csv that scripts/ablation.py wrote")
            command.add_argument("-o", "--output", type=Path, help="by default the folder of --values")
            continue
        command.add_argument("-opt", required=True, help="a test's option file")
        command.add_argument("--images", default="bundled:test", help="folder of HR images")
        command.add_argument("-o", "--output", type=Path, help="by default results/<name of the test>_figures")
        if name == "idr":
            command.add_argument("--baseline", help="weights of a student's network trained without distillation")
            command.add_argument("--crop", type=int, default=128, help="side of the HR crops, pixels")
            command.add_argument("--max_crops", type=int, default=100, help="crops, spread evenly over the images")
        elif name == "adaptation":
            command.add_argument("--mln", nargs="+", default=[], metavar="NAME=WEIGHTS", help="more MLNs to compare")
            command.add_argument("--steps", nargs="+", type=int, default=[0, 1, 2, 3, 5, 7, 10], help="of adaptation")
            command.add_argument("--max_side", type=int, default=192, help="central crop of the images, HR pixels")
        else:
            command.add_argument("--width", type=float, default=2.6, help="of the Gaussian blur, HR pixels")
    args = parser.parse_args(argv)
    pyplot()  # before any work
    if args.draw is draw_steps:  # the only figure without networks
        draw_steps(ROOT, args)
        return
    with torch.no_grad():
        args.draw(read_setting(ROOT, args), args)


if __name__ == "__main__":
    run(main)
