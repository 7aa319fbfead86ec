"""BasicSR's functions against ours: Real-ESRGAN's degradation of 4 x 400 x 400 ground truth, with USM sharpening.

    python benchmarks/realesrgan_degradation.py
    python benchmarks/realesrgan_degradation.py --json out.json

The plain side calls BasicSR's functions in the order of its `RealESRNetModel.feed_data`, changed only as far as they
would not run on the CPU (contiguous input of `filter2D`, a fresh quality tensor), on blur kernels made beforehand. Both
sides work on the same drawn tasks, in one process, in turns, on two threads.
"""

from __future__ import annotations

import mrda_utils.openmp  # noqa: F401  (before torch)

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import interleaved, publish
from torch import Tensor

import mrda_data  # noqa: F401  (lets BasicSR be imported)

# isort: split
from basicsr.data.degradations import random_add_gaussian_noise_pt, random_add_poisson_noise_pt
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D

from mrda_data.degradation import Task, build_degradation
from mrda_data.degradation.jpeg import jpeg
from mrda_data.degradation.kernels import filter2d
from mrda_data.degradation.noise import add_poisson_noise
from mrda_data.degradation.realesrgan import blur_kernel, sinc_kernel
from mrda_data.degradation.sharpen import usm_sharpen
from mrda_utils.arguments import argument_parser
from mrda_utils.seeding import torch_generator

SCALE, BATCH, SIDE, TASKS = 4, 4, 400, 8
JPEGER, SHARPENER = DiffJPEG(differentiable=False), USMSharp()


def padded(kernel: Tensor) -> Tensor:
    """A kernel as BasicSR's data set hands it over: 21x21, one for each image."""
    margin = (21 - kernel.shape[-1]) // 2
    return F.pad(kernel, (margin,) * 4).float().expand(BATCH, 21, 21)


def kernels(task: Task) -> dict[str, Tensor]:
    """The three kernels of a task; a single one in the middle where there is no filter."""
    pulse = padded(torch.ones(1, 1))
    second = {key.removeprefix("second_"): value for key, value in task.items() if key.startswith("second_")}
    final = "final_sinc_size" in task
    return {
        "first": padded(blur_kernel(task)),
        "second": padded(blur_kernel(second)) if "kernel_type" in second else pulse,
        "final": padded(sinc_kernel(task["final_sinc_omega_c"], task["final_sinc_size"])) if final else pulse,
    }


def basicsr_filter(image: Tensor, kernel: Tensor) -> Tensor:
    """BasicSR's filter."""
    return filter2D(image.contiguous(), kernel)


def basicsr_jpeg(image: Tensor, quality: float) -> Tensor:
    """BasicSR's JPEG, a quality for each image."""
    return JPEGER(image.clamp(0, 1), quality=torch.full((len(image),), quality))


def basicsr_noise(image: Tensor, task: Task, prefix: str) -> Tensor:
    """BasicSR's noise, with ranges reduced to the task's values."""
    gray = float(task[prefix + "gray_noise"])
    if prefix + "noise_sigma_255" in task:
        sigma = task[prefix + "noise_sigma_255"]
        return random_add_gaussian_noise_pt(image, sigma_range=(sigma, sigma), gray_prob=gray)
    scale = task[prefix + "poisson_scale"]
    return random_add_poisson_noise_pt(image, scale_range=(scale, scale), gray_prob=gray)


def basicsr_degrade(gt: Tensor, task: Task, kernel: dict[str, Tensor]) -> Tensor:
    """The order of BasicSR's `feed_data`."""
    lq_side = SIDE // SCALE
    out = basicsr_filter(gt, kernel["first"])
    out = F.interpolate(out, scale_factor=task["resize_scale"], mode=task["resize_mode"])
    out = basicsr_noise(out, task, "")
    out = basicsr_jpeg(out, task["jpeg_quality"])
    if "second_kernel_type" in task:
        out = basicsr_filter(out, kernel["second"])
    size = int(lq_side * task["second_resize_scale"])
    out = F.interpolate(out, size=(size, size), mode=task["second_resize_mode"])
    out = basicsr_noise(out, task, "second_")
    if not task["final_jpeg_last"]:
        out = basicsr_jpeg(out, task["second_jpeg_quality"])
    out = F.interpolate(out, size=(lq_side, lq_side), mode=task["final_resize_mode"])
    out = basicsr_filter(out, kernel["final"])
    if task["final_jpeg_last"]:
        out = basicsr_jpeg(out, task["second_jpeg_quality"])
    return (out * 255).round().clamp(0, 255) / 255


def cases() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name -> (BasicSR's side, ours)."""
    degradation = build_degradation({"type": "realesrgan", "gt_usm": False}, SCALE)  # sharpened here, or not
    tasks = [degradation.sample(torch_generator(0, "task", number)) for number in range(TASKS)]
    ready = [kernels(task) for task in tasks]
    gt = torch.rand(BATCH, 3, SIDE // 8, SIDE // 8)
    gt = (F.interpolate(gt, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1) * 255).round() / 255
    generator = torch_generator(0, "noise")

    def plain(sharpen: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: [basicsr_degrade(sharpen(gt), *pair) for pair in zip(tasks, ready, strict=True)]

    def ours(sharpen: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: [degradation.apply(sharpen(gt), task, generator) for task in tasks]

    kernel = torch.rand(21, 21)
    return {
        f"{TASKS} tasks with USM": (plain(SHARPENER), ours(usm_sharpen)),
        f"{TASKS} tasks without USM": (plain(lambda x: x), ours(lambda x: x)),
        "USM": (lambda: SHARPENER(gt), lambda: usm_sharpen(gt)),
        "blur 21x21": (lambda: basicsr_filter(gt, padded(kernel)), lambda: filter2d(gt, kernel)),
        "Poisson noise": (
            lambda: random_add_poisson_noise_pt(gt, scale_range=(1, 1)),
            lambda: add_poisson_noise(gt, 1.0, False, generator),
        ),
        "JPEG": (lambda: basicsr_jpeg(gt, 60.0), lambda: jpeg(gt, 60.0)),
    }


@torch.no_grad()
def main() -> None:
    """Parse the command line and measure."""
    parser = argument_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    for case, (plain, ours) in cases().items():
        seconds = interleaved({"basicsr": plain, "ours": ours}, args.repeats)
        rows.append({"case": case, **seconds, "ratio": seconds["basicsr"] / seconds["ours"]})
    publish(rows, args.json)


if __name__ == "__main__":
    main()
