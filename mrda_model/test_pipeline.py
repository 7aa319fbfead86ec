"""test.py: every method on every set whose images are there, and the report."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from basicsr.data import build_dataset
from basicsr.models import build_model
from torch.utils.data import Dataset

from mrda_data import BenchmarkDataset, LQDataset
from mrda_data.lr_set import write_lr_set
from mrda_data.protocols import PROTOCOLS
from mrda_metric.lpips import alexnet_file
from mrda_model.evaluation import (
    Restorer,
    Row,
    evaluate,
    gather_rows,
    means,
    missing_weights,
    needs_ground_truth,
)
from mrda_model.test_model import MRDATestModel
from mrda_model.test_pictures import VIEWER_SIDE, Shown, show
from mrda_utils import __version__, page, report
from mrda_utils.command_line import Run, parse
from mrda_utils.complexity import LR_SIZE, device_name
from mrda_utils.distributed import contact_lost_ends, gather, on_rank_0, stop
from mrda_utils.errors import UserError
from mrda_utils.files import refusal_named, write_text
from mrda_utils.options import OptionError
from mrda_utils.published import published_cases

ORACLE_NOTE = (
    "Teacher (oracle): its MLN adapts on the ground truth of the very image that it restores, so it is no method that "
    "could be used on a photograph."
)
PICTURE_NOTE = (
    f"Pictures: {VIEWER_SIDE} x {VIEWER_SIDE} pixels at most, around the centre; values are the whole image's."
)
COST_NOTE = (
    "Mult-Adds: one LR image of {}x{}, the teacher without the adaptation of its MLN. Median s / image: of the LR "
    "images of this test, adaptation included, on {}."
)
MEAN_NOTE = (
    "Means over images, and over kernels where they have no column each; PSNR in dB; Y is that of BT.601, 16-235. "
    "Metrics: "
)


def test_pipeline(root: Path, argv: list[str] | None = None) -> None:
    """Test the networks of an option file; prints the tables and writes the report.

    Args:
        root: folder of test.py.
        argv: command line; None for the process's own.

    Raises:
        UserError: a mistake in options, data or checkpoints.
    """
    run = parse(root, argv, is_train=False)
    try:
        with contact_lost_ends():
            _test(run)
    finally:
        stop()


def _test(run: Run) -> None:
    opt = run.opt
    folder = Path(opt["path"]["run"])
    metrics = opt["val"]["metrics"]
    datasets, left_out = {}, []
    for dataset_opt in opt["datasets"].values():
        keys = {"BenchmarkDataset": ["dataroot_gt"], "LQDataset": ["dataroot_lq"]}
        wanted = [dataset_opt[key] for key in keys.get(dataset_opt["type"], ["dataroot_gt", "dataroot_lq"])]
        missing = [images for images in wanted if not (images.startswith("bundled:") or Path(images).is_dir())]
        if missing:
            left_out.append(f"{dataset_opt['name']}: left out; put its images into {' and '.join(missing)}")
        else:
            datasets[dataset_opt["name"]] = dataset_opt
    if not datasets:
        raise OptionError("\n  ".join(["datasets: none of them is there:", *left_out]))
    for name, reason in missing_weights(metrics).items():
        del metrics[name]
        left_out.append(f"{name}: left out; {reason}")
    datasets = {name: build_dataset(dataset_opt) for name, dataset_opt in datasets.items()}
    if run.save_lr:
        on_rank_0(lambda: _save_lr(datasets, run.save_lr))
    model = build_model(opt)
    parts = {name: _applicable(name, dataset, model, metrics, left_out) for name, dataset in datasets.items()}
    rank, world_size = run.process.rank, run.process.world_size
    if rank == 0:
        print(*left_out, sep="\n", end="\n" if left_out else "")  # noqa: T201
    on_rank_0(lambda: _prepare_folder(folder, opt["name"]))
    rows, shown_items, seconds = [], [], []
    for name, dataset in datasets.items():
        shown = {round((i + 0.5) * len(dataset) / opt["panels"] - 0.5) for i in range(opt["panels"])}
        own, own_shown = [], []
        for restored in evaluate(parts[name].restorers, dataset, parts[name].metrics, model.device, rank, world_size):
            own.append((restored.index, restored.rows))
            seconds += restored.seconds.items()
            if restored.index in shown:
                item = show(restored, dataset.opt, model.oracles, opt["val"]["metrics"], folder / "panels")
                own_shown.append((restored.index, item))
        rows += gather_rows(own)
        shown_items += [item for _, item in sorted(entry for part in gather(own_shown) for entry in part)]
    costs = _costs(model, [entry for part in gather(seconds) for entry in part])
    if rank == 0:
        _write(run, rows, costs, shown_items, datasets, left_out)


def _prepare_folder(folder: Path, name: str) -> None:
    """Delete the pictures of an earlier test of this name.

    Raises:
        UserError: the folder is none of ours; an option file may name any.
    """
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()
    if found - {"panels"} and f"{name}.yml" not in found:
        raise UserError(f"path.results_root: {folder} holds other things than a test; choose another name")
    shutil.rmtree(folder / "panels", ignore_errors=True)


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


class _Part(NamedTuple):
    """What one data set is tested by."""

    restorers: dict[str, Restorer]
    metrics: dict[str, dict]


def _applicable(name: str, dataset: Dataset, model: MRDATestModel, metrics: dict[str, dict], left_out: list) -> _Part:
    """All methods and metrics; without ground truth those that do not need it, and a line in `left_out`."""
    if not isinstance(dataset, LQDataset):
        return _Part(model.restorers, metrics)
    compared = {metric for metric, opt in metrics.items() if needs_ground_truth(opt)}
    if model.oracles or compared:
        left_out.append(f"{name}: has no ground truth, so without {', '.join([*model.oracles, *sorted(compared)])}")
    return _Part(
        {method: restore for method, restore in model.restorers.items() if method not in model.oracles},
        {metric: opt for metric, opt in metrics.items() if metric not in compared},
    )


def _kernel_tables(rows: list[Row], datasets: dict[str, Dataset]) -> dict[str, report.KernelTable]:
    """What the report shows kernel by kernel: the data sets whose protocol says so."""
    tables = {}
    for name, dataset in datasets.items():
        protocol = PROTOCOLS.get(dataset.opt.get("protocol"))
        if protocol and protocol.table == "kernels":
            cases = [(case.label, case.kernel, case.task["noise_sigma_255"]) for case in dataset.cases]
            values = means([row for row in rows if row.dataset == name], "method", "metric", "kernel")
            tables[name] = report.KernelTable(cases, values, protocol.note)
    return tables


def _kernel_list(
    name: str, dataset_opt: dict, rows: list[Row], metrics: dict[str, dict], table: report.KernelTable | None
) -> list[report.Table]:
    """What the page shows kernel by kernel: every data set that has several."""
    values = means([row for row in rows if row.dataset == name], "kernel", "method", "metric")
    others = None
    if table and report.follows_protocol(dataset_opt, metrics, dataset_opt["scale"]):
        cases = published_cases(name, dataset_opt["protocol"], dataset_opt["scale"])
        others = report.published_kernels(table, cases)
    return report.kernel_list(name, values, metrics, others) if values else []


def _costs(model: MRDATestModel, seconds: list[tuple[str, float]]) -> dict[str, report.Cost]:
    """Cost of each method; `seconds` has its time on each image."""
    times = {method: [time for name, time in seconds if name == method] for method in model.restorers}
    return {
        method: report.Cost(*model.complexity.get(method, (None, None)), median(own))
        for method, own in times.items()
        if own  # none of an oracle, where no set has ground truth
    }


def _write(
    run: Run,
    rows: list[Row],
    costs: dict[str, report.Cost],
    shown: list[Shown],
    datasets: dict[str, Dataset],
    left_out: list[str],
) -> None:
    opt, folder = run.opt, Path(run.opt["path"]["run"])
    with refusal_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    measured, by_kernel = means(rows), _kernel_tables(rows, datasets)
    weights = {key: path for key, path in opt["path"].items() if key.startswith("pretrain_network")}
    weights |= {f"baselines.{name}.path": baseline["path"] for name, baseline in opt["baselines"].items()}
    metrics = opt["val"]["metrics"]
    for name, kind in metrics.items():
        if kind["type"] == "calculate_lpips":
            weights[f"val.metrics.{name}.weights"] = str(alexnet_file(kind.get("weights")))
    notes = [
        MEAN_NOTE + "; ".join(f"{name} {kind}" for name, kind in metrics.items()),
        COST_NOTE.format(*LR_SIZE, device_name(run.process.device)),
        *([ORACLE_NOTE] if "network_t" in opt else []),
        *left_out,
    ]
    write_text(run.option_text, folder / f"{opt['name']}.yml")  # first: it marks the folder as ours
    report.write_csv(rows, Row._fields, folder / "metrics.csv")
    report.write_json(measured, costs, opt["name"], run.options_sha256, weights, folder / "metrics.json")
    dataset_opts = {name: dataset.opt for name, dataset in datasets.items()}
    tables = report.comparisons(measured, dataset_opts, metrics, opt["scale"], by_kernel)
    markdown, plain = (report.text_of([*tables, report.cost_table(costs)], fmt) for fmt in ("github", "simple"))
    report.write_markdown(markdown, notes, [item.panel for item in shown], folder / "report.md")
    sections = [
        page.Section(
            name,
            [table for table in tables if table.dataset == name],
            _kernel_list(name, dataset.opt, rows, metrics, by_kernel.get(name)),
            [item.viewer for item in shown if item.dataset == name],
        )
        for name, dataset in datasets.items()
    ]
    subtitle = f"x{opt['scale']}, mrda {__version__}, {device_name(run.process.device)}"
    notes.append(PICTURE_NOTE)
    page.write_page(opt["name"], subtitle, sections, report.cost_table(costs), notes, folder / "index.html")
    print(f"\n{plain}\n")  # noqa: T201
    print(f"report:   {folder / 'report.md'}\npage:     {folder / 'index.html'}\npictures: {folder / 'panels'}")  # noqa: T201
