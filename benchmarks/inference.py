"""The full-size student upscaling one image, LR 180x320: fast against the plain eager network.

    python benchmarks/inference.py [--json out.json]

Plain is the network in contiguous NCHW, fp32. All sides run in this process, in turns; onnxruntime and OpenVINO where
they are installed.
"""

from __future__ import annotations

import mrda_utils.openmp  # noqa: F401  (before torch)

import math
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
from adaptation import plain_layout
from machine import gemm, interleaved, publish
from torch import Tensor

from mrda_arch import MRDANet
from mrda_arch.collapse import collapse_upscaler
from mrda_eval.complexity import count_mult_adds
from mrda_inference import backend_functions
from mrda_utils.arguments import argument_parser

HEIGHT, WIDTH = 180, 320
WANTED = {"fp32": 1.4, "bf16": 3.0, "openvino fp32": 1.8}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BACKENDS = {
    "onnx fp32": ("onnx", "onnxruntime"),
    "openvino fp32": ("openvino", "openvino"),
    "openvino bf16": ("openvino", "openvino"),
}
"""Side -> backend, the package that it needs besides onnx."""


def dtype_of(side: str) -> str:
    """fp32 or bf16."""
    return side.split()[-1]


def backend_side(net: MRDANet, lq: Tensor, backend: str, dtype: torch.dtype) -> Callable[[], Tensor]:
    """One upscaling by a backend."""
    encode, restore = backend_functions(net, backend, dtype)
    return lambda: restore(lq, encode(lq))


def sides(net: MRDANet, lq: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Name -> one upscaling."""
    fast = collapse_upscaler(deepcopy(net))

    def plain() -> Tensor:
        with plain_layout():
            return net(lq)

    def bf16() -> Tensor:
        with torch.autocast(lq.device.type, torch.bfloat16):
            return fast(lq).float()

    others = {
        name: backend_side(net, lq, backend, DTYPES[dtype_of(name)])
        for name, (backend, package) in BACKENDS.items()
        if lq.device.type == "cpu" and find_spec("onnx") and find_spec(package)
    }
    return {"plain": plain, "fp32": lambda: fast(lq), "bf16": bf16, **others}


@torch.inference_mode()
def measure(repeats: int) -> list[dict]:
    """Seconds, ratio, share of the GEMM rate in the same dtype, and how far the output is from plain's."""
    net, lq = MRDANet().eval(), torch.rand(1, 3, HEIGHT, WIDTH)
    run = sides(net, lq)
    products = {name: gemm(dtype) for name, dtype in DTYPES.items()}
    seconds = interleaved({**run, **{f"gemm {name}": product for name, (product, _) in products.items()}}, repeats)
    reference, work = run["plain"](), count_mult_adds(net, [(1, 3, HEIGHT, WIDTH)])
    rows = [{"side": "plain", "seconds": seconds["plain"]}]
    for name, upscaling in run.items():
        if name == "plain":
            continue
        _, product_work = products[dtype_of(name)]
        error = upscaling() - reference
        rows.append(
            {
                "side": name,
                "seconds": seconds[name],
                "ratio": seconds["plain"] / seconds[name],
                "wanted": WANTED.get(name),
                "gemm_share": work / seconds[name] / (product_work / seconds[f"gemm {dtype_of(name)}"]),
                "largest_difference": error.abs().max().item(),
                "psnr_to_plain": -10 * math.log10(error.square().mean().item()),
            }
        )
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_device(args.device)  # of network and image
    publish(measure(args.repeats), args.json, args.device)


if __name__ == "__main__":
    main()
