"""test.py: every method on every set whose images are there, and the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from torch.utils.data import Dataset

from mrda_data import BenchmarkDataset, LQDataset
from mrda_data.lr_set import write_lr_set
from mrda_data.sr_folder import SRFolder
from mrda_eval.evaluation import Restorer, Row, evaluate, gather_rows
from mrda_eval.pictures import IMAGES, Example, image_name, save_images, write_example
from mrda_eval.tables import MethodCost
from mrda_metric import Metric, metrics_of
from mrda_model.benchmark_model import MRDATestModel
from mrda_options.command_line import Run, parse
from mrda_pipeline.process_group import contact_lost_ends, stop
from mrda_pipeline.results import Results, write_results
from mrda_pipeline.signals import noted_signals, requested_by, stop_requested
from mrda_utils.distributed import any_rank, gather, on_rank_0
from mrda_utils.errors import OptionError, Stopped, UserError
from mrda_utils.fields import did_you_mean


def test_pipeline(root: Path, argv: list[str] | None = None) -> int:
    """Test the networks of an option file; prints the tables and writes the report.

    Args:
        root: folder of test.py.
        argv: command line; None for the process's own.

    Returns:
        Exit code: 0, or 1 if images could not be used or a metric had no value on one; the report counts them.

    Raises:
        UserError: a mistake in options, data or checkpoints.
        Stopped: a signal came; what was measured until then is written.
    """
    run = parse(root, argv, is_train=False)
    try:
        with contact_lost_ends():
            return int(_test(run) > 0)
    finally:
        stop()


def _test(run: Run) -> int:
    """Run the test; return how many images and values are missing.

    Raises:
        Stopped: a signal came; what was measured until then is written.
    """
    opt, folder = run.opt, Path(run.opt["path"]["run"])
    left_out: list[str] = []
    datasets = _datasets(opt, left_out)
    metrics = _metrics(opt, left_out)
    unusable = [f"{name}: {reason}" for name, dataset in datasets.items() for reason in dataset.left_out]
    if run.save_lr:
        on_rank_0(lambda: _save_lr(datasets, run.save_lr))
    _check_crops(opt["val"]["panel_crop"], datasets)
    model = build_model(opt)
    for name in model.folders:
        for dataset in datasets.values():
            SRFolder(name, opt["baselines"][name]["sr"]).check(dataset)
    parts = {name: _applicable(name, dataset, model, metrics, left_out) for name, dataset in datasets.items()}
    if run.process.rank == 0:
        for root, ignored in _other_files(datasets.values()):
            print(f"{root}: {ignored}")  # noqa: T201
        print(*left_out, *unusable, sep="\n", end="\n" if left_out or unusable else "")  # noqa: T201
    on_rank_0(lambda: _prepare_folder(folder, opt["name"]))
    with noted_signals():
        measured = [_measure(run, dataset, parts[name], model.device) for name, dataset in datasets.items()]
        complete = not any_rank(stop_requested())
    found = _Measured(*(list(chain.from_iterable(parts)) for parts in zip(*measured, strict=True)))
    missing = [*unusable, *found.failures]
    if run.process.rank == 0 and found.rows:
        costs, notes = _costs(model, found.seconds), [*left_out, *_missing_note(missing)]
        write_results(run, Results(found.rows, costs, found.examples, datasets, metrics, notes, complete))
    if not complete:
        kept = f"what was measured is in {folder}, marked as incomplete" if found.rows else "nothing was measured"
        raise Stopped(f"stopped by {requested_by().name}; {kept}", 128 + requested_by())
    return len(missing)


class _Measured(NamedTuple):
    """What all processes found, on one data set or on all."""

    rows: list[Row]
    examples: list[Example]
    seconds: list[tuple[str, float]]
    failures: list[str]


def _measure(run: Run, dataset: Dataset, part: _Applicable, device: torch.device) -> _Measured:
    """Restore and measure a data set, up to a signal; every process must call it."""
    opt, rank, world_size = run.opt, run.process.rank, run.process.world_size
    panels, crops = Path(opt["path"]["run"]) / "panels", opt["val"]["panel_crop"]
    wanted = _example_indices(dataset, opt["panels"], crops)
    rows, examples, seconds, failures = [], [], [], []
    if not any_rank(stop_requested()):
        for restored in evaluate(part.restorers, dataset, part.metrics, device, rank, world_size):
            rows.append((restored.index, restored.rows))
            seconds += restored.seconds.items()
            failures += restored.failures
            if opt["val"]["save_img"]:
                save_images(restored, Path(opt["path"]["run"]) / IMAGES / dataset.opt["name"])
            if restored.index in wanted:
                examples.append((restored.index, write_example(restored, dataset.opt, part.metrics, panels, crops)))
            if stop_requested():
                break
    together = sorted(entry for own in gather(examples) for entry in own)
    return _Measured(
        gather_rows(rows),
        [item for _, item in together],
        [entry for own in gather(seconds) for entry in own],
        [failure for own in gather(failures) for failure in own],
    )


def _example_indices(dataset: Dataset, panels: int, crops: dict[str, list[int]]) -> set[int]:
    """Which items the report shows: spread over all, or over those of the images that have a crop of their own."""
    cases, names = len(dataset) // len(dataset.sr_sizes), list(dataset.sr_sizes)
    chosen = [i for i in range(len(dataset)) if not crops or image_name(names[i // cases]) in crops]
    return {chosen[round((i + 0.5) * len(chosen) / panels - 0.5)] for i in range(panels)} if chosen else set()


def _check_crops(crops: dict[str, list[int]], datasets: dict[str, Dataset]) -> None:
    """Raise OptionError for a crop of an image that is in no data set."""
    known = [image_name(name) for dataset in datasets.values() for name in dataset.sr_sizes]
    for name in crops:
        if name not in known:
            raise OptionError(f"val.panel_crop: {name!r} is no image of the test sets, {did_you_mean(name, known)}")


def _datasets(opt: dict, left_out: list[str]) -> dict[str, Dataset]:
    """The data sets whose images are there, by name; a line in `left_out` for each of the others.

    Raises:
        UserError: there is none.
    """
    found = {}
    for dataset_opt in opt["datasets"].values():
        keys = {"BenchmarkDataset": ["dataroot_gt"], "LQDataset": ["dataroot_lq"]}
        wanted = [dataset_opt[key] for key in keys.get(dataset_opt["type"], ["dataroot_gt", "dataroot_lq"])]
        missing = [images for images in wanted if not (images.startswith("bundled:") or Path(images).is_dir())]
        if missing:
            left_out.append(f"{dataset_opt['name']}: left out; put its images into {' and '.join(missing)}")
        else:
            found[dataset_opt["name"]] = dataset_opt
    if not found:
        raise OptionError("\n  ".join(["datasets: none of them is there:", *left_out]))
    return {name: build_dataset(dataset_opt) for name, dataset_opt in found.items()}


def _other_files(datasets: Iterable[Dataset]) -> Iterator[tuple[Path, str]]:
    """Folders of images that hold other files as well, and which."""
    for dataset in datasets:
        sources = [getattr(dataset, name, None) for name in ("source", "gt", "lq")]
        yield from ((source.folder, source.left_out) for source in sources if getattr(source, "left_out", ""))


def _metrics(opt: dict, left_out: list[str]) -> list[Metric]:
    """The metrics whose weights, if they need some, are there; a line in `left_out` for each of the others."""
    found = []
    for metric in metrics_of(opt["val"]["metrics"]):
        try:
            metric.weights_file()
        except UserError as error:
            left_out.append(f"{metric.name}: left out; {error}")
        else:
            found.append(metric)
    return found


def _missing_note(missing: list[str]) -> list[str]:
    """What a reader of the means must know."""
    if not missing:
        return []
    more = f" (and {len(missing) - 10} more)" if len(missing) > 10 else ""
    return [f"{len(missing)} images or values are missing, and left out of the means: {'; '.join(missing[:10])}{more}"]


def _prepare_folder(folder: Path, name: str) -> None:
    """Delete the pictures of an earlier test of this name, panels and SR images.

    Raises:
        UserError: the folder is none of ours; an option file may name any.
    """
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()
    if found - {"panels", IMAGES} and f"{name}.yml" not in found:
        raise UserError(f"path.results_root: {folder} contains other things than a test; choose another name")
    for pictures in ("panels", IMAGES):
        shutil.rmtree(folder / pictures, ignore_errors=True)


def _save_lr(datasets: dict[str, Dataset], folder: Path) -> None:
    """Write the LR set of each data set that has one.

    Raises:
        UserError: none has, or a folder is there already.
    """
    targets = {folder / name: dataset for name, dataset in datasets.items() if isinstance(dataset, BenchmarkDataset)}
    if not targets:
        raise UserError(f"--save_lr: it is for a BenchmarkDataset, none of {', '.join(datasets)} is one")
    for target in targets:  # all of them, before anything is written
        if target.exists():
            raise UserError(f"--save_lr: {target} exists; delete it or choose another folder")
    for target, dataset in targets.items():
        write_lr_set(dataset, target)
        print(f"LR images: {target}")  # noqa: T201


class _Applicable(NamedTuple):
    """What one data set is tested by."""

    restorers: dict[str, Restorer]
    metrics: list[Metric]


def _applicable(
    name: str, dataset: Dataset, model: MRDATestModel, metrics: list[Metric], left_out: list
) -> _Applicable:
    """All methods and metrics; without ground truth those that do not need it, and a line in `left_out`."""
    if not isinstance(dataset, LQDataset):
        return _Applicable(model.restorers, metrics)
    compared = [metric.name for metric in metrics if metric.needs_gt]
    if model.oracles or compared:
        left_out.append(f"{name}: has no ground truth, so without {', '.join([*model.oracles, *compared])}")
    return _Applicable(
        {method: restore for method, restore in model.restorers.items() if method not in model.oracles},
        [metric for metric in metrics if not metric.needs_gt],
    )


def _costs(model: MRDATestModel, seconds: list[tuple[str, float]]) -> dict[str, MethodCost]:
    """Cost of each method; `seconds` has its time on each image."""
    times = {method: [time for name, time in seconds if name == method] for method in model.restorers}
    return {
        method: MethodCost(*model.complexity.get(method, (None, None)), median(own))
        for method, own in times.items()
        if own and method not in model.folders  # none of an oracle, where no set has ground truth
    }
