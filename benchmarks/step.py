"""One training iteration of the student: adaptation, network, optimizer; by default the lite one with 64 channels.

    python benchmarks/step.py                                    # one process
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 benchmarks/step.py
    PYTHONPATH=/other/checkout python benchmarks/step.py         # the same iteration by another version of the code
    python benchmarks/step.py --paper --precision fp32           # a network of the paper's size

A process has one task of four images of its own; degradation and data loading are left out.
"""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):  # another version of the code may have none
    import mrda_utils.openmp  # noqa: F401  (before torch)

import json
import os
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
import torch.nn.functional as F
from machine import describe, wait
from torch.nn.parallel import DistributedDataParallel

import mrda_arch
from mrda_arch import MLN, MRDANet
from mrda_loss import IDRDistillLoss
from mrda_model.adaptation import Adaptation, adapted_features
from mrda_model.precision import autocast
from mrda_utils.arguments import argument_parser
from mrda_utils.resize import imresize

LITE = {"num_feat": 64, "num_block": 10, "den_feat": 32, "upsampler": "pixelshuffledirect", "global_residual": True}
IMAGES = 4


class Student:
    """Networks, optimizer and one task of random images.

    Args:
        paper: the paper's size and LR images of 64x64, not the lite network's and 48x48.
        teacher: train the teacher; there is no distillation then.
        bf16: adaptation and network in bfloat16.
        device: where.
    """

    def __init__(self, paper: bool, teacher: bool, bf16: bool, device: str) -> None:
        size, mln_feat, side = ({}, 128, 64) if paper else (LITE, LITE["num_feat"], 48)
        self.teacher, self.precision = teacher, "bf16" if bf16 else "none"
        self.mln = MLN(num_feat=mln_feat).requires_grad_(False).to(device)
        self.den_t = MRDANet(**size, den_in_ch=mln_feat).den.requires_grad_(False).to(device)
        net = MRDANet(**size, den_in_ch=mln_feat if teacher else 3).to(device)
        self.net = DistributedDataParallel(net) if dist.is_initialized() else net
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-4, fused=True)
        self.adaptation = Adaptation([0.01] * 5, dtype="bfloat16" if bf16 else "float32")
        self.cri_kd = IDRDistillLoss()
        gt = torch.rand(IMAGES, 3, 4 * side, 4 * side, device=device)
        self.lq, self.gt = imresize(gt, 1 / 4), gt

    def step(self) -> float:
        """One iteration; the seconds that adaptation took."""
        start = time.perf_counter()
        features = adapted_features(self.mln, self.lq, self.gt, self.adaptation)
        wait()
        seconds = time.perf_counter() - start
        with autocast(features.device, self.precision):
            with torch.no_grad():
                target = self.den_t(features)
            sr, idr = self.net(self.lq, features if self.teacher else None, return_idr=True)
        loss = F.l1_loss(sr.float(), self.gt)
        loss = loss + 0 * idr.sum() if self.teacher else loss + sum(self.cri_kd(idr.float(), target.float()))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        wait()
        return seconds


def main() -> None:
    """Parse the command line and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument("--paper", action="store_true", help="networks of paper size, LR 64x64")
    parser.add_argument("--teacher", action="store_true", help="the teacher's iteration")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=20, help="timed iterations")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    torch.manual_seed(0)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    student = Student(args.paper, args.teacher, args.precision == "bf16", args.device)
    student.step()
    student.step()
    adaptation, whole = [], []
    for _ in range(args.repeats):
        start = time.perf_counter()
        adaptation.append(student.step())
        whole.append(time.perf_counter() - start)
    figures = {
        "machine": describe(args.device),
        "code": str(Path(mrda_arch.__file__).parents[1]),
        "processes": dist.get_world_size() if dist.is_initialized() else 1,
        "step_s": median(whole),
        "adaptation_s": median(adaptation),
    }
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(json.dumps(figures, indent=2))  # noqa: T201
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
