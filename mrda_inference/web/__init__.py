"""A page to upscale photographs: a preview first, whole photographs with progress, before and after under a slider.

mrda-web [--weights student.safetensors] [--port 7860]
"""

from __future__ import annotations

import argparse
import sys

from mrda_utils import __version__
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run

FIRST_PORT = 7860


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line.

    Raises:
        OptionError: --auth without its colon.
    """
    parser = argument_parser(__doc__.splitlines()[0], prog="mrda-web")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        help="students to choose from, .safetensors or .pth, or shipped:NAME; by default those of mrda-upscale --list",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps ...")
    parser.add_argument(
        "--backend", default="torch", choices=["auto", "torch", "onnx", "openvino"], help="as of mrda-upscale"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1: this machine alone can use the page)",
    )
    parser.add_argument("--port", type=int, help=f"by default the first free one from {FIRST_PORT} on")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a user and a password")
    args = parser.parse_args(argv)
    if args.auth is not None and not all(args.auth.partition(":")):
        raise OptionError("--auth: name a user and a password, with a colon between them")
    return args


def main(argv: list[str] | None = None) -> None:
    """Serve the page until it is interrupted."""

    def load_and_serve() -> None:
        args = parse(argv)
        print(f"mrda-web {__version__}: loading ...", file=sys.stderr, flush=True)  # noqa: T201  (torch takes seconds)
        from mrda_inference.web.server import serve

        serve(args)

    run(load_and_serve, interrupted="stopped", out_of_memory="out of memory")
