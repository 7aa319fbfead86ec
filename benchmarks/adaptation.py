"""Plain against fast: adaptation of MLN, and the training steps that consist of it mostly.

    python benchmarks/adaptation.py                  # the table
    python benchmarks/adaptation.py --sweep          # how the cost of adaptation grows
    python benchmarks/adaptation.py --json out.json

Plain is the straightforward path: autograd through conv - shuffle - conv - shuffle - conv with the upscaler's weights
not requiring grad, and a full last forward. Both run in this process, in turns; peak memory is taken in a process of
its own for each.
"""

from __future__ import annotations

import mrda_utils.openmp  # noqa: F401  (before torch)

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from machine import gemm, interleaved, print_rows, publish

from mrda_arch import MLN, MRDANet, den_arch, rdan_arch
from mrda_loss import IDRDistillLoss
from mrda_model.adaptation import Adaptation, TaskBatch, adapted_features, meta_gradient
from mrda_model.precision import autocast
from mrda_utils.arguments import argument_parser
from mrda_utils.resize import imresize

SIZE = {"num_feat": 128, "batch": 4, "side": 64, "steps": 5}
BF16 = torch.bfloat16
Step = Callable[[], object]


def mult_adds(num_feat: int, batch: int, side: int, steps: int) -> int:
    """Useful multiply-adds of one adaptation on the fast path, x4.

    A step is one forward and, of the backward, the gradients by weights and by features (by the LR image: none), plus
    the collapsed upscaler forward and backward; the features are one more forward of the body.
    """
    first, inner, upscaler = 27 * num_feat, 6 * 9 * num_feat**2, 25 * 48 * num_feat
    step = 2 * first + 3 * inner + 2 * upscaler
    return batch * side**2 * (steps * step + first + inner)


def frozen_mln(num_feat: int) -> MLN:
    """MLN as in teacher and student: frozen."""
    return MLN(num_feat=num_feat).requires_grad_(False)


def images(batch: int, side: int) -> TaskBatch:
    """LR and HR images of one task."""
    gt = torch.rand(batch, 3, 4 * side, 4 * side)
    return TaskBatch(imresize(gt, 1 / 4), gt)


def settings(steps: int, fast: bool, dtype: torch.dtype) -> Adaptation:
    """Adaptation of the plain or the fast side."""
    return Adaptation([1e-2] * steps, dtype=str(dtype).removeprefix("torch."), collapse=fast)


def adaptation(num_feat: int, batch: int, side: int, steps: int, fast: bool, dtype: torch.dtype) -> Step:
    """D'_T of one task."""
    mln, task, adaptation = frozen_mln(num_feat), images(batch, side), settings(steps, fast, dtype)

    def run() -> None:
        features = adapted_features(mln, *task, adaptation)
        if not fast:
            mln.upscaler(features)

    return run


def meta_iteration(fast: bool, dtype: torch.dtype) -> Step:
    """Five tasks, each with 4 images to adapt on and 4 for the outer loss."""
    mln = MLN(num_feat=SIZE["num_feat"])
    mln.upscaler.requires_grad_(False)
    adaptation = settings(SIZE["steps"], fast, dtype)
    tasks = [(images(4, SIZE["side"]), images(4, SIZE["side"])) for _ in range(5)]
    optimizer = torch.optim.Adam(mln.body.parameters(), 2e-4)

    def run() -> None:
        grads = [meta_gradient(mln, *task, adaptation, torch.nn.functional.l1_loss)[1] for task in tasks]
        for parameter, *parts in zip(mln.body.parameters(), *grads, strict=True):
            parameter.grad = sum(parts) / len(parts)
        optimizer.step()

    return run


@contextmanager
def plain_layout() -> Iterator[None]:
    """Networks keep to the layout of their input."""
    with patch.object(rdan_arch, "fast_layout", lambda x: x), patch.object(den_arch, "fast_layout", lambda x: x):
        yield


def network_step(student: bool, fast: bool, dtype: torch.dtype) -> Step:
    """One iteration of the teacher or student stage at paper size."""
    mln, task = frozen_mln(SIZE["num_feat"]), images(SIZE["batch"], SIZE["side"])
    adaptation = settings(SIZE["steps"], fast, dtype)
    net = MRDANet(den_in_ch=3 if student else SIZE["num_feat"])
    den_t = MRDANet(den_in_ch=SIZE["num_feat"]).den.requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), 2e-4)
    cri_kd = IDRDistillLoss()

    def run() -> None:
        features = adapted_features(mln, *task, adaptation)
        if not fast:
            with torch.no_grad():
                mln.upscaler(features)
        with (
            autocast(task.gt.device, adaptation.dtype),
            plain_layout() if not fast else nullcontext(),
        ):
            target = den_t(features) if student else None
            sr, idr = net(task.lq, None if student else features, return_idr=True)
        loss = torch.nn.functional.l1_loss(sr.float(), task.gt)
        if student:
            loss = loss + sum(cri_kd(idr.float(), target.float()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


CASES: dict[str, tuple[Callable[[bool, torch.dtype], Step], torch.dtype, float]] = {
    "adaptation, fp32": (lambda fast, dtype: adaptation(**SIZE, fast=fast, dtype=dtype), torch.float32, 3.9),
    "adaptation, bf16": (lambda fast, dtype: adaptation(**SIZE, fast=fast, dtype=dtype), BF16, 8.0),
    "meta iteration, fp32": (meta_iteration, torch.float32, 3.5),
    "teacher step, fp32": (lambda fast, dtype: network_step(False, fast, dtype), torch.float32, 2.4),
    "student step, fp32": (lambda fast, dtype: network_step(True, fast, dtype), torch.float32, 2.4),
    "teacher step, bf16": (lambda fast, dtype: network_step(False, fast, dtype), BF16, 3.5),
    "student step, bf16": (lambda fast, dtype: network_step(True, fast, dtype), BF16, 3.5),
}
"""Name -> (builder, the fast side's dtype, ratio to reach); the plain side is always fp32."""


def build(case: str, fast: bool) -> Step:
    """One side of a case."""
    builder, dtype, _ = CASES[case]
    return builder(fast, dtype if fast else torch.float32)


def peak_memory(case: str, fast: bool) -> float:
    """MiB that one run adds to a fresh process."""
    command = [sys.executable, __file__, "--device", str(torch.get_default_device()), "--memory", case]
    command += ["--fast"] if fast else []
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_memory(case: str, fast: bool) -> float:
    """In the process of its own: growth of the peak (resident set, or of a GPU), MiB, what is built once included."""
    run = build(case, fast)
    if torch.get_default_device().type == "cuda":
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = status("VmRSS")
    run()
    return (status("VmHWM") - before) / 1024


def status(key: str) -> int:
    """A memory figure of this process, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def compare(cases: list[str], repeats: int) -> list[dict]:
    """Each case: seconds, ratio, peak memory, share of the GEMM rate."""
    rows = []
    for case in cases:
        _, dtype, wanted = CASES[case]
        product, product_mult_adds = gemm(dtype)
        seconds = interleaved({"plain": build(case, False), "fast": build(case, True), "gemm": product}, repeats)
        row = {"case": case, **seconds, "ratio": seconds["plain"] / seconds["fast"], "wanted": wanted}
        if case.startswith("adaptation"):
            row["gemm_share"] = mult_adds(**SIZE) / seconds["fast"] / (product_mult_adds / seconds["gemm"])
        row["plain_mib"], row["fast_mib"] = (peak_memory(case, fast) for fast in (False, True))
        rows.append(row)
        print_rows([row])
    return rows


def sweep(repeats: int) -> list[dict]:
    """Adaptation in fp32 over LR side, batch, C' and steps, one changed at a time."""
    changes = [{}, *({"side": s} for s in (16, 32)), *({"batch": b} for b in (1, 8))]
    changes += [*({"num_feat": c} for c in (32, 64)), *({"steps": k} for k in (1, 10))]
    rows = []
    for change in changes:
        size = {**SIZE, **change}
        sides = {name: adaptation(**size, fast=name == "fast", dtype=torch.float32) for name in ("plain", "fast")}
        seconds = interleaved(sides, repeats)
        rate = mult_adds(**size) / seconds["fast"] / 1e9
        rows.append({**size, **seconds, "ratio": seconds["plain"] / seconds["fast"], "gmac_per_s": rate})
        print_rows([rows[-1]])
    return rows


def main() -> None:
    """Parse the command line and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument("--sweep", action="store_true", help="how the cost of adaptation grows")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="rows of the table; all by default"
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--memory", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--fast", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_device(args.device)  # of networks and images
    if args.memory:
        print(measure_memory(args.memory, args.fast))  # noqa: T201
        return
    rows = sweep(args.repeats) if args.sweep else compare(args.cases, args.repeats)
    publish(rows, args.json, args.device)


if __name__ == "__main__":
    main()
