"""Write .safetensors from BasicSR's .pth, and back.

    python scripts/convert_weights.py net_g_latest.pth -o student.safetensors
    python scripts/convert_weights.py student.safetensors -o student.pth

Averaged weights (params_ema) are taken where there are any. Nothing is computed, every bit of them stays; --fp16 rounds
them to half precision, for a file of half the size. Networks load them into float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

from mrda_arch import network_from_file
from mrda_arch.network_file import about
from mrda_utils import checkpoint
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, UserError, run
from mrda_utils.shipped import PREFIX, shipped_weights


def convert(source: Path, target: Path, title: str | None, fp16: bool = False) -> str:
    """Convert one file; return a description of its content. With `fp16` weights are rounded to half precision.

    Raises:
        UserError: a file that cannot be read or written, or is not one of this project's networks.
    """
    net = network_from_file(source)
    content = checkpoint.load(source)
    weights, origin = checkpoint.weights_of(content, "params_ema", source), content.get("mrda")
    if fp16:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    if target.suffix == ".safetensors":
        checkpoint.save_safetensors(weights, origin, about(net, title or target.stem), target)
    else:  # both keys, so that every loader finds the one it asks for; the tensors are written once
        known = {} if origin is None else {"mrda": origin}
        checkpoint.save({"params": weights, "params_ema": weights, **known}, target)
    return f"{type(net).__name__} x{net.upscale}, {sum(p.numel() for p in net.parameters()):,d} parameters"


def main(argv: list[str] | None = None) -> None:
    """Convert the file that the command line names."""
    parser = argument_parser(__doc__)
    parser.add_argument("weights", help=".pth or .safetensors, or shipped:NAME")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, of the other kind")
    parser.add_argument("--title", help="of a .safetensors file; by default its name")
    parser.add_argument("--fp16", action="store_true", help="round to half precision")
    args = parser.parse_args(argv)
    suffixes = (".pth", ".safetensors")
    if args.output.suffix not in suffixes:
        raise OptionError(f"-o {args.output}: must end in {' or '.join(suffixes)}")
    weights = shipped_weights(args.weights) if args.weights.startswith(PREFIX) else Path(args.weights)
    if args.output.exists() and args.output.samefile(weights):
        raise UserError(f"-o {args.output}: is the file to convert")
    print(f"{args.output}: {convert(weights, args.output, args.title, args.fp16)}")  # noqa: T201


if __name__ == "__main__":
    run(main)
