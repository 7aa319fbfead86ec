"""Metrics of one or several methods on a test set: what validation during training and test.py share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from basicsr.utils import tensor2img
from torch import Tensor
from torch.utils.data import Dataset

from mrda_data.degradation import Task
from mrda_eval.complexity import timed
from mrda_eval.progress import progress_bar
from mrda_metric import Metric, MetricError
from mrda_utils.distributed import gather
from mrda_utils.errors import UserError


class Item(NamedTuple):
    """What a method may look at to restore one image; ground truth and task are for oracles."""

    lq: Tensor
    """(1, 3, h, w) RGB in [0, 1]."""
    gt: Tensor | None = None
    """(1, 3, scale h, scale w), where it is known."""
    task: Task | None = None
    """Degradation of lq, where it is known."""
    where: tuple[str, str, str] = ("", "", "")
    """Data set, image and kernel."""


Restorer = Callable[[Item], Tensor]
"""Item -> sr (1, 3, scale h, scale w) RGB in [0, 1]."""


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
    failures: list[str]
    """Metrics without a value; they have no row of any method here, so that means compare the same images."""


def _to_image(tensor: Tensor, what: str, advice: str = "the training diverged, take earlier weights") -> np.ndarray:
    if not torch.isfinite(tensor).all():
        raise UserError(f"{what}: the output is not finite; {advice}")
    return tensor2img(tensor.clone())  # a clone: tensor2img clips its argument in place


@torch.no_grad()
def evaluate(
    restorers: dict[str, Restorer],
    dataset: Dataset,
    metrics: Sequence[Metric],
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Restored]:
    """Restore items of a test set by every method and measure them, image by image.

    Args:
        restorers: method name to restorer; without an oracle for a LQDataset.
        dataset: a BenchmarkDataset, PairedDataset or LQDataset.
        metrics: without those that need ground truth for a LQDataset.
        device: where the restorers compute.
        rank: this process, which takes every `world_size`-th item.
        world_size: number of processes that share the work; `gather_rows` brings theirs together.

    Raises:
        UserError: an output with NaN or infinity, or of another size than expected; image and method are named.
    """
    own = range(rank, len(dataset), world_size)
    for index in progress_bar(dataset.opt["name"], rank == 0, own, leave=False):
        data = dataset[index]
        gt = data["gt"][None].to(device) if "gt" in data else None
        where = dataset.opt["name"], data["lq_path"], data["kernel"]
        item = Item(data["lq"][None].to(device), gt, data.get("task"), where)
        gt_image = _to_image(gt, "ground truth") if gt is not None else None
        # first: it would spoil every method's output
        lq_image = _to_image(item.lq, f"degradation of {' '.join(where)}", "look at its options")
        images, seconds = _restore(restorers, item, dataset.opt["scale"], device)
        rows, failures = _measure(images, gt_image, metrics, where)
        yield Restored(index, data, lq_image, gt_image, images, rows, seconds, failures)


def _restore(
    restorers: dict[str, Restorer], item: Item, scale: int, device: torch.device
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """SR image of each method for an item, and the seconds that it took."""
    expected = (1, 3, *(scale * side for side in item.lq.shape[-2:]))
    images, seconds = {}, {}
    for method, restore in restorers.items():
        sr, seconds[method] = timed(partial(restore, item), device)
        images[method] = _to_image(sr, f"{method} on {' '.join(item.where)}")
        if sr.shape != expected:
            raise UserError(f"{method}: its output is {list(sr.shape)}, not {list(expected)}; is it for this scale?")
    return images, seconds


def _measure(
    images: dict[str, np.ndarray], gt: np.ndarray | None, metrics: Sequence[Metric], where: tuple[str, str, str]
) -> tuple[list[Row], list[str]]:
    """A row per method and metric; and the reasons of metrics without a value."""
    rows, failures = [], []
    for metric in metrics:
        try:
            values = {method: metric.measure(sr, gt, " ".join(where)) for method, sr in images.items()}
        except MetricError as error:
            failures.append(str(error))
        else:
            rows += [Row(*where, method, metric.name, value) for method, value in values.items()]
    return rows, failures


def gather_rows(own: list[tuple[int, list[Row]]]) -> list[Row]:
    """Rows of all processes' items in the order of the items, on every process; `own` has (index, rows)."""
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
