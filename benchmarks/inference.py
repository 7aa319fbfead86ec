"""The full-size student upscaling one image, LR 180x320: fast against the plain eager network.

    python benchmarks/inference.py [--json out.json]

Plain is the network in contiguous NCHW, fp32. All sides run in this process, in turns.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from adaptation import plain_layout, print_rows
from machine import describe, gemm, interleaved
from torch import Tensor

from mrda_arch import MRDANet
from mrda_arch.collapse import collapse_upscaler
from mrda_utils.complexity import count_mult_adds

HEIGHT, WIDTH = 180, 320
WANTED = {"fp32": 1.4, "bf16": 3.0}


def sides(net: MRDANet, lq: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Name -> one upscaling."""
    fast = collapse_upscaler(deepcopy(net))

    def plain() -> Tensor:
        with plain_layout():
            return net(lq)

    def bf16() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return fast(lq).float()

    return {"plain": plain, "fp32": lambda: fast(lq), "bf16": bf16}


@torch.inference_mode()
def measure(repeats: int) -> list[dict]:
    """Seconds, ratio, share of the GEMM rate in the same dtype, and how far the output is from plain's."""
    net, lq = MRDANet().eval(), torch.rand(1, 3, HEIGHT, WIDTH)
    run = sides(net, lq)
    products = {"fp32": gemm(torch.float32), "bf16": gemm(torch.bfloat16)}
    seconds = interleaved({**run, **{f"gemm {name}": product for name, (product, _) in products.items()}}, repeats)
    reference, work = run["plain"](), count_mult_adds(net, HEIGHT, WIDTH)
    rows = [{"side": "plain", "seconds": seconds["plain"]}]
    for name, (_, product_work) in products.items():
        error = run[name]() - reference
        rows.append(
            {
                "side": name,
                "seconds": seconds[name],
                "ratio": seconds["plain"] / seconds[name],
                "wanted": WANTED[name],
                "gemm_share": work / seconds[name] / (product_work / seconds[f"gemm {name}"]),
                "largest_difference": error.abs().max().item(),
                "psnr_to_plain": -10 * math.log10(error.square().mean().item()),
            }
        )
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    torch.manual_seed(0)
    machine = describe()
    print(machine)  # noqa: T201
    rows = measure(args.repeats)
    print_rows(rows)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
