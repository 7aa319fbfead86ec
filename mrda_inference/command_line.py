"""The upscaler's command line: what is to become of which files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import ImageColor

from mrda_inference.batch import restore_files
from mrda_inference.chosen_idr import parse, with_degradation
from mrda_inference.inputs import files_to_make
from mrda_inference.photograph import OutputOptions
from mrda_inference.tiling import OVERLAP
from mrda_inference.upscaler import DEFAULT_MODEL, MODELS, open_upscaler
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run
from mrda_utils.numerics import set_numerics


def main() -> None:
    """Upscale what the command line names; see `upscale_files`."""
    run(
        lambda: sys.exit(upscale_files()),
        interrupted="interrupted; what is finished is whole, the same command goes on from there",
        out_of_memory="out of memory; choose a smaller --tile",
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argument_parser("Upscale photographs.", prog="mrda-upscale")
    parser.add_argument(
        "-i", "--input", nargs="+", required=True, help="files, folders, patterns such as 'photos/*.jpg'"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; or a file, for one input file")
    networks = parser.add_mutually_exclusive_group()
    networks.add_argument(
        "--model", choices=MODELS, default=DEFAULT_MODEL, help="shipped network, see --list (default %(default)s)"
    )
    networks.add_argument("--weights", help="in its place: a student's .safetensors or .pth, or shipped:NAME")
    purposes = "\n".join(f"{name:8}{model.purpose}" for name, model in MODELS.items())
    parser.add_argument("--list", action="version", version=purposes, help="tell what the shipped networks are for")
    parser.add_argument(
        "--as",
        dest="degradation",
        metavar="DEGRADATION",
        help="take photographs for such ones, whatever the network finds: clean; or blur=2.4, noise=10, jpeg=60, or "
        "several of them, blur=2,jpeg=60",
    )
    _add_output_options(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps ...")
    parser.add_argument(
        "--backend",
        choices=["auto", "torch", "onnx", "openvino"],
        default="torch",
        help="what computes (default torch); onnx (onnxruntime) and openvino: on the CPU, installed by "
        'pip install ".[onnx]" or ".[openvino]"; auto: openvino where it is installed and faster, measured once',
    )
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="auto: the half precision that the GPU is fast in; float32 on the CPU",
    )
    parser.add_argument("--tile", type=int, help="longest side of a tile, LR pixels; by default as memory allows")
    parser.add_argument("--overlap", type=int, default=OVERLAP, help=f"of tiles, LR pixels (default {OVERLAP})")
    return _checked(parser.parse_args(argv))


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    """What becomes of the network's result."""
    parser.add_argument("--format", choices=["png", "jpg", "webp"], help="of the files in the folder (default png)")
    parser.add_argument("--quality", type=int, help="1 to 100: of jpg (default 95), and of webp (default: lossless)")
    parser.add_argument("--outscale", type=float, help="output size over input size (default: the network's)")
    parser.add_argument("--width", type=int, help="of the output, pixels; without --height the shape is kept")
    parser.add_argument("--height", type=int, help="of the output, pixels; without --width the shape is kept")
    parser.add_argument("--background", type=_colour, help="colour behind transparent pictures: white, #ffeedd ...")
    parser.add_argument("--strip", action="store_true", help="leave out EXIF, XMP and resolution")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--skip-existing", action="store_true", help="leave outputs that exist (the default)")
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def _checked(args: argparse.Namespace) -> argparse.Namespace:
    """Options that are in range and go together."""
    if args.overlap < 0:
        raise OptionError(f"--overlap {args.overlap}: must be at least 0")
    if args.tile is not None and args.tile <= args.overlap:
        raise OptionError(f"--tile {args.tile}: must be larger than --overlap, {args.overlap}")
    if args.backend in ("onnx", "openvino") and args.device not in ("auto", "cpu"):
        raise OptionError(
            f"--device {args.device}: --backend {args.backend} computes on the CPU; leave one of them out"
        )
    if args.backend == "onnx" and args.dtype not in ("auto", "float32"):
        raise OptionError(f"--dtype {args.dtype}: --backend onnx computes in float32; openvino takes bfloat16 too")
    return args


def _colour(name: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{name}: no colour; white, black, #ffeedd ...") from error


def upscale_files(argv: list[str] | None = None) -> int:
    """Upscale the files that the command line names; one that fails is told and passed over.

    Returns:
        Exit code, see `restore_files`.

    Raises:
        UserError: a mistake in the arguments or weights, before anything is written; or the disk takes no more.
    """
    args = _parse(argv)
    output = OutputOptions(args.quality, args.outscale, args.width, args.height, args.background, args.strip)
    degradation = None if args.degradation is None else parse(args.degradation)
    targets = files_to_make(args.input, args.output, args.format)
    if args.quality is not None and targets[0][1].suffix.lower() == ".png":
        raise OptionError(f"--quality {args.quality}: png has none; leave it out, or choose jpg or webp")
    set_numerics()
    weights = args.weights or MODELS[args.model].weights
    upscaler = open_upscaler(weights, args.device, args.dtype, args.backend, args.tile, args.overlap)
    if degradation is not None:
        upscaler = with_degradation(upscaler, degradation)
    return restore_files(targets, args.output, upscaler, output, overwrite=args.overwrite)
