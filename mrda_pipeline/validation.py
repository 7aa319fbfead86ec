"""Validation during a training: what the stage's restorer makes of whole images."""

from __future__ import annotations

from basicsr.utils import get_root_logger
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from mrda_eval.evaluation import evaluate, gather_rows, means
from mrda_model.base_model import StageModel
from mrda_pipeline.signals import stop_requested
from mrda_utils.distributed import any_rank, gather


def validate(
    model: StageModel, dataset: Dataset, current_iter: int, tb_logger: SummaryWriter | None
) -> dict[str, float] | None:
    """Measure the metrics of `val` on a BenchmarkDataset, shared among processes; log means and the best so far.

    Returns:
        Mean of each metric that has a value; None if a signal came, then nothing of this validation counts.
    """
    sets = [opt["name"] for phase, opt in model.opt["datasets"].items() if phase != "train"]
    name, rank, world_size = dataset.opt["name"], model.opt["rank"], model.opt["world_size"]
    own, failures = [], []
    for restored in evaluate(
        {model.opt["name"]: model.restorer()}, dataset, model.metrics, model.device, rank, world_size
    ):
        own.append((restored.index, restored.rows))
        failures += restored.failures
        if stop_requested():
            break
    if any_rank(stop_requested()):
        return None
    found = {metric: value for (_, _, metric), value in means(gather_rows(own)).items()}
    best = model.best_metric_results.setdefault(name, {})
    lines = [f"Validation {name}"]
    for metric in model.metrics:
        if metric.name not in found:
            continue
        value = found[metric.name]
        if metric.name not in best or metric.is_better(value, best[metric.name]["val"]):
            best[metric.name] = {"val": value, "iter": current_iter}
            if rank == 0 and metric.name == model.opt["val"].get("save_best") and name == sets[0]:
                model.save_weights("best", current_iter)
        shown = best[metric.name]
        lines.append(f"\t # {metric.name}: {value:.4f}\tBest: {shown['val']:.4f} @ {shown['iter']} iter")
        if tb_logger:
            tb_logger.add_scalar(f"metrics/{name}/{metric.name}", value, current_iter)
    get_root_logger().info("\n".join(lines))
    if failures := [failure for part in gather(failures) for failure in part]:
        message = "Validation %s: %d values are missing and left out of the means, for example %s"
        get_root_logger().warning(message, name, len(failures), failures[0])
    return found
