"""Draw the kernels of a test protocol side by side, as PNG.

python scripts/draw_kernels.py aniso9_mrda [-o kernels.png] [--scale 4]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import numpy as np
from PIL import Image

from mrda_data.degradation.kernels import task_kernel
from mrda_data.protocols import PROTOCOLS, protocol_cases
from mrda_eval.panel import side_by_side
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import UserError, run


def draw(protocol: str, scale: int) -> Image.Image:
    """Every kernel, 21x21 pixels enlarged by 8, its maximum in white, under its name."""
    pictures = {}
    for case in protocol_cases(protocol, scale):
        kernel = task_kernel(case.task).numpy()
        pictures[case.kernel] = np.rint(255 * kernel / kernel.max()).astype(np.uint8)[..., None].repeat(3, axis=2)
    return side_by_side(pictures, None, height=168)


def main() -> None:
    """Draw what the command line names."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "protocol", choices=[name for name, protocol in PROTOCOLS.items() if protocol.kernels], help="of a test"
    )
    parser.add_argument("-o", "--output", type=Path, help="file to write; PROTOCOL.png by default")
    parser.add_argument("--scale", type=int, choices=[2, 3, 4], default=4, help="upscaling factor")
    args = parser.parse_args()
    path = args.output or Path(f"{args.protocol}.png")
    try:
        draw(args.protocol, args.scale).save(path)
    except (OSError, ValueError) as error:  # ValueError: a suffix that Pillow does not know
        raise UserError(f"--output {path}: cannot be written ({error})") from error
    print(f"{path}: {PROTOCOLS[args.protocol].note or PROTOCOLS[args.protocol].source}")  # noqa: T201


if __name__ == "__main__":
    run(main)
