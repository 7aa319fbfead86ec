"""Validation during a training: the stage's restorer on whole images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from basicsr.utils import get_root_logger
from torch.utils.data import Dataset

from mrda_eval.evaluation import Restored, evaluate, gather_rows, means
from mrda_eval.panel import write_picture
from mrda_eval.pictures import panel, panel_name
from mrda_model.base_model import StageModel
from mrda_pipeline.curves import Curves
from mrda_pipeline.signals import stop_requested
from mrda_utils.distributed import any_rank, gather

PANELS = 3  # of each validation set


def validate(model: StageModel, dataset: Dataset, current_iter: int, curves: Curves | None) -> dict[str, float] | None:
    """Measure the metrics of `val` on a BenchmarkDataset, shared among processes; log means and show panels.

    Returns:
        Mean of each metric that has a value; None if a signal came, then nothing of this validation counts.
    """
    name, rank, world_size = dataset.opt["name"], model.opt["rank"], model.opt["world_size"]
    own, failures = [], []
    shown = {len(dataset) * (2 * i + 1) // (2 * PANELS) // world_size * world_size for i in range(PANELS)}  # rank 0's
    for restored in evaluate(
        {model.opt["name"]: model.restorer()}, dataset, model.metrics, model.device, rank, world_size
    ):
        own.append((restored.index, restored.rows))
        failures += restored.failures
        if restored.index in shown:
            _show(restored, model, dataset.opt, current_iter, curves)
        if stop_requested():
            break
    if any_rank(stop_requested()):
        return None
    found = {metric: value for (_, _, metric), value in means(gather_rows(own)).items()}
    get_root_logger().info("\n".join([f"Validation {name}", *_with_the_best(model, name, found, current_iter)]))
    if curves:
        curves.add({f"metrics/{name}/{metric}": value for metric, value in found.items()}, current_iter)
    if failures := [failure for part in gather(failures) for failure in part]:
        message = "Validation %s: %d values are missing and left out of the means, for example %s"
        get_root_logger().warning(message, name, len(failures), failures[0])
    return found


def _with_the_best(model: StageModel, name: str, found: dict[str, float], current_iter: int) -> list[str]:
    """One line per metric; keeps the best values so far, and the weights of the best `val.save_best`."""
    first = next(opt["name"] for phase, opt in model.opt["datasets"].items() if phase != "train")
    best, lines = model.best_metric_results.setdefault(name, {}), []
    for metric in model.metrics:
        if metric.name not in found:
            continue
        value = found[metric.name]
        if metric.name not in best or metric.is_better(value, best[metric.name]["val"]):
            best[metric.name] = {"val": value, "iter": current_iter}
            if model.opt["rank"] == 0 and metric.name == model.opt["val"].get("save_best") and name == first:
                model.save_weights("best", current_iter)
        at = best[metric.name]
        lines.append(f"\t # {metric.name}: {value:.4f}\tBest: {at['val']:.4f} @ {at['iter']} iter")
    return lines


def _show(restored: Restored, model: StageModel, dataset_opt: dict, current_iter: int, curves: Curves | None) -> None:
    """Write LR, SR and GT side by side, over the picture of the validation before, and to TensorBoard."""
    picture = panel(restored, dataset_opt, model.metrics)
    name = f"{dataset_opt['name']}/{panel_name(restored)}"
    write_picture(picture, Path(model.opt["path"]["run"]) / "panels" / f"{name}.png")
    if curves:
        curves.add_picture(name, np.asarray(picture), current_iter)
