"""Parameters, Mult-Adds and runtime of the networks in an option file, as in the paper's Tables II to V.

python scripts/complexity.py -opt options/train_student_x4.yml [--lr_size 180 320] [--runs 5]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import mrda_loss  # noqa: F401  (these imports register what option files name, and let BasicSR be imported)

# isort: split
import torch
from basicsr.archs import build_network
from tabulate import tabulate

from mrda_eval.complexity import LR_SIZE, count_mult_adds, count_parameters, device_name, input_shapes, runtime
from mrda_eval.evaluation import Item
from mrda_model.adaptation import Adaptation
from mrda_model.benchmark_model import lr_multiple
from mrda_model.frozen import freeze
from mrda_model.restorers import teacher_oracle
from mrda_options import read_options
from mrda_options.process import start
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, UserError, run
from mrda_utils.numerics import set_numerics

HEADERS = ["network", "type", "Param (M)", "Mult-Adds (G)", "Time (ms)"]


def networks(opt: dict) -> dict[str, dict]:
    """Options of each network that restores images, by its name in the option file."""
    found = {key: value for key, value in opt.items() if key.startswith("network_") and key != "network_d"}
    baselines = opt.get("baselines", {})
    found |= {name: baseline["network"] for name, baseline in baselines.items() if "network" in baseline}
    if not found:
        raise OptionError("-opt: names no network; try options/train_student_x4.yml")
    return found


def measure(name: str, network_opt: dict, height: int, width: int, device: torch.device, runs: int) -> list:
    """A network's row of the table; weights are random, which costs the same."""
    multiple = lr_multiple(network_opt)
    shapes = input_shapes(network_opt, *(side + -side % multiple for side in (height, width)))
    net = build_network(network_opt).eval().to(device)
    mult_adds = count_mult_adds(net, shapes)
    inputs = [torch.rand(shape, device=device) for shape in shapes]
    seconds = runtime(lambda: net(*inputs), device, runs)
    return [name, network_opt["type"], count_parameters(net) / 1e6, mult_adds / 1e9, 1000 * seconds]


def measure_oracle(opt: dict, height: int, width: int, device: torch.device, runs: int) -> list:
    """The row of the teacher together with MLN's adaptation to the image, as in the paper's Table V."""
    nets = (build_network(opt[key]) for key in ("network_t" if "network_t" in opt else "network_g", "network_mln"))
    teacher, mln = (freeze(net.to(device)) for net in nets)
    restore = teacher_oracle(teacher, mln, Adaptation(**opt["adaptation"]))
    lq, gt = (torch.rand(1, 3, factor * height, factor * width, device=device) for factor in (1, opt["scale"]))
    seconds = runtime(lambda: restore(Item(lq, gt)), device, runs)
    return ["oracle", "adaptation + teacher", count_parameters(teacher) / 1e6, None, 1000 * seconds]


def main() -> None:
    """Print the table of what the command line names."""
    parser = argument_parser(__doc__)
    parser.add_argument("-opt", required=True, help="option file (YAML), a stage's or a test's")
    parser.add_argument("--lr_size", nargs=2, type=int, default=LR_SIZE, metavar=("H", "W"), help="the paper's")
    parser.add_argument("--runs", type=int, default=5, help="timed ones; their median is printed")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="change options: device=cpu")
    args = parser.parse_args()
    if min(*args.lr_size, args.runs) < 1:
        raise UserError(f"--lr_size {args.lr_size}, --runs {args.runs}: must be at least 1")
    opt, _ = read_options(args.opt, None, args.force_yml)
    set_numerics(**{key: opt[key] for key in ("tf32", "deterministic", "cudnn_benchmark")})
    device = start("none", opt["device"], timeout=1).device
    rows = [measure(name, net, *args.lr_size, device, args.runs) for name, net in networks(opt).items()]
    if "network_mln" in opt:
        rows.append(measure_oracle(opt, *args.lr_size, device, args.runs))
    print(tabulate(rows, HEADERS, floatfmt=("", "", ".2f", ".2f", ".2f"), missingval="-"))  # noqa: T201
    height, width = args.lr_size
    print(  # noqa: T201
        f"\nLR {height}x{width}, x{opt['scale']}; time: median of {args.runs} runs on {device_name(device)}, "
        f"torch {torch.__version__}; MLN and teacher without adaptation but in the oracle's row"
    )


if __name__ == "__main__":
    run(main)
