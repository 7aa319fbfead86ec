"""Metrics of one or several methods on a test set: what validation during training and test.py share."""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from statistics import fmean
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from basicsr.utils.color_util import rgb2ycbcr_pt
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from mrda_arch import MLN, MRDAKernelNet, MRDANet
from mrda_data.degradation import Task
from mrda_data.degradation.kernels import task_kernel
from mrda_metric.lpips import alexnet_file, lpips_network
from mrda_model.adaptation import Adaptation, adapt, adapted_features, super_resolve
from mrda_utils.complexity import timed
from mrda_utils.distributed import gather
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize

Restorer = Callable[[Tensor, Tensor | None], Tensor]
"""(lq, gt) -> sr, each (1, 3, H, W) RGB in [0, 1]; only an oracle looks at gt, others may be given None."""


def bicubic_restorer(scale: int) -> Restorer:
    """Plain bicubic upsampling."""
    return lambda lq, gt: imresize(lq, scale)


def network_restorer(net: torch.nn.Module, multiple: int = 1) -> Restorer:
    """Anything that maps lq to sr: the student, MLN without adaptation, a baseline.

    Args:
        net: called with lq alone.
        multiple: reflect lq at its lower and right side until its sides are multiples of this; sr is cropped.
    """

    def restore(lq: Tensor, gt: Tensor | None) -> Tensor:
        height, width = lq.shape[-2:]
        padded = F.pad(lq, (0, -width % multiple, 0, -height % multiple), "reflect")
        sr = net(padded)
        scale = sr.shape[-1] // padded.shape[-1]
        return sr[..., : scale * height, : scale * width]

    return restore


def luma_restorer(restore: Restorer, scale: int) -> Restorer:
    """A restorer of Y alone (BT.601, 16-235) for RGB: the colours are upsampled bicubically."""

    def restore_rgb(lq: Tensor, gt: Tensor | None) -> Tensor:
        rgb = imresize(lq, scale)
        change = restore(rgb2ycbcr_pt(lq, y_only=True), gt) - rgb2ycbcr_pt(rgb, y_only=True)
        return rgb + change * (255 / 219)  # the same for R, G and B, which changes Y and leaves Cb and Cr

    return restore_rgb


def mln_oracle(mln: MLN, how: Adaptation) -> Restorer:
    """MLN adapted on the ground truth of the very image that it restores."""

    def restore(lq: Tensor, gt: Tensor) -> Tensor:
        return super_resolve(mln, adapt(mln, lq, gt, how), lq, imresize(lq, mln.upscale), how)

    return restore


def teacher_oracle(net: MRDANet, mln: MLN, how: Adaptation) -> Restorer:
    """Teacher guided by MLN adapted on the ground truth."""
    return lambda lq, gt: net(lq, adapted_features(mln, lq, gt, how))


class KernelOracle(NamedTuple):
    """A network that is told the blur kernel of each item of a test set."""

    net: MRDAKernelNet
    kernel_size: int

    def on(self, task: Task) -> Restorer:
        """The restorer of images under this degradation."""
        kernel = task_kernel(task, self.kernel_size)
        return lambda lq, gt: self.net(lq, kernel.to(lq)[None])


class Row(NamedTuple):
    """One measured value."""

    dataset: str
    image: str
    kernel: str
    method: str
    metric: str
    value: float


class Restored(NamedTuple):
    """Item `index` of a test set as every method restored it, 8-bit BGR (H, W, 3); `lq` and, if any, `gt` likewise."""

    index: int
    item: dict
    lq: np.ndarray
    gt: np.ndarray | None
    sr: dict[str, np.ndarray]
    rows: list[Row]
    seconds: dict[str, float]
    """That each method took."""


def _to_image(tensor: Tensor, what: str, advice: str = "the training diverged, take earlier weights") -> np.ndarray:
    if not torch.isfinite(tensor).all():
        raise UserError(f"{what}: the output is not finite; {advice}")
    return tensor2img(tensor.clone())  # a clone: tensor2img clips its argument in place


def needs_ground_truth(metric_opt: dict) -> bool:
    """Whether a metric of BasicSR's registry compares with a second image."""
    return "img2" in inspect.signature(METRIC_REGISTRY.get(metric_opt["type"])).parameters


def missing_weights(metrics: dict[str, dict]) -> dict[str, str]:
    """Metrics whose own weights are not there, by name, and what to do about it."""
    reasons = {}
    for name, opt in metrics.items():
        if opt["type"] == "calculate_lpips":
            try:
                lpips_network(alexnet_file(opt.get("weights")))
            except UserError as error:
                reasons[name] = str(error)
    return reasons


def _measure(metric: str, opt: dict, images: dict[str, np.ndarray], what: str) -> float:
    """One metric of BasicSR's registry on `img` and, for most, `img2`.

    Raises:
        UserError: no value, which happens to images that are too small.
    """
    try:
        value = float(calculate_metric(images, opt))
    except (ArithmeticError, cv2.error, RuntimeError, ValueError) as error:  # how BasicSR's metrics fail
        raise UserError(f"{what}: no {metric} ({error}); is the image too small for it, or flat?") from error
    if math.isnan(value):
        raise UserError(f"{what}: no {metric}; the image is too small for it")
    return value


@torch.no_grad()
def evaluate(
    restorers: dict[str, Restorer | KernelOracle],
    dataset: Dataset,
    metrics: dict[str, dict],
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Restored]:
    """Restore items of a test set by every method and measure them, image by image.

    Args:
        restorers: method name to restorer; without an oracle for a LQDataset.
        dataset: a BenchmarkDataset or a LQDataset.
        metrics: metric name to metric options; without those that need ground truth for a LQDataset.
        device: where the restorers compute.
        rank: this process, which takes every `world_size`-th item.
        world_size: number of processes that share the work; `gather_rows` brings theirs together.

    Raises:
        UserError: an output with NaN or infinity, or an image too small for a metric; both are named.
    """
    own = range(rank, len(dataset), world_size)
    for index in tqdm(own, dataset.opt["name"], disable=None if rank == 0 else True, leave=False):
        item = dataset[index]
        lq = item["lq"][None].to(device)
        gt = item["gt"][None].to(device) if "gt" in item else None
        where = dataset.opt["name"], item["lq_path"], item["kernel"]
        gt_image = _to_image(gt, "ground truth") if gt is not None else None
        # first: it would spoil every method's output
        lq_image = _to_image(lq, f"degradation of {' '.join(where)}", "look at its options")
        reference = {"img2": gt_image} if gt is not None else {}
        images, rows, seconds = {}, [], {}
        for method, restore in restorers.items():
            if isinstance(restore, KernelOracle):
                restore = restore.on(item["task"])
            sr, seconds[method] = timed(partial(restore, lq, gt), device)
            images[method] = _to_image(sr, f"{method} on {' '.join(where)}")
            expected = (1, 3, *(dataset.opt["scale"] * side for side in lq.shape[-2:]))
            if sr.shape != expected:
                raise UserError(
                    f"{method}: its output is {list(sr.shape)}, not {list(expected)}; is it for this scale?"
                )
            for metric, opt in metrics.items():
                value = _measure(metric, opt, {"img": images[method], **reference}, " ".join(where))
                rows.append(Row(*where, method, metric, value))
        yield Restored(index, item, lq_image, gt_image, images, rows, seconds)


def gather_rows(own: list[tuple[int, list[Row]]]) -> list[Row]:
    """Rows of all processes' items in the order of the items, on every process; `own` holds (index, rows)."""
    everyone = [entry for part in gather(own) for entry in part]
    return [row for _, rows in sorted(everyone) for row in rows]


def means(rows: list[Row], *by: str) -> dict[tuple[str, ...], float]:
    """Mean value of the rows that agree in the columns `by`, by default over images and kernels.

    Args:
        rows: what was measured.
        by: names of `Row`'s columns; dataset, method and metric where none is given.
    """
    values = defaultdict(list)
    key = attrgetter(*(by or ("dataset", "method", "metric")))
    for row in rows:
        values[key(row)].append(row.value)
    return {group: fmean(own) for group, own in values.items()}
