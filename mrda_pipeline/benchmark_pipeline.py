"""test.py: every method on every set whose images are there, and the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from basicsr.data import build_dataset
from basicsr.models import build_model
from torch.utils.data import Dataset

from mrda_data import BenchmarkDataset, LQDataset
from mrda_data.lr_set import write_lr_set
from mrda_data.protocols import PROTOCOLS
from mrda_eval import page, report
from mrda_eval.complexity import LR_SIZE, device_name
from mrda_eval.evaluation import Restorer, Row, evaluate, gather_rows, means
from mrda_eval.pictures import VIEWER_SIDE, Shown, show
from mrda_eval.published import published_cases
from mrda_metric import Metric, metrics_of
from mrda_model.benchmark_model import MRDATestModel
from mrda_options.command_line import Run, parse
from mrda_utils import __version__
from mrda_utils.distributed import contact_lost_ends, gather, on_rank_0, stop
from mrda_utils.errors import OptionError, UserError
from mrda_utils.files import refusal_named, write_text

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


def test_pipeline(root: Path, argv: list[str] | None = None) -> int:
    """Test the networks of an option file; prints the tables and writes the report.

    Args:
        root: folder of test.py.
        argv: command line; None for the process's own.

    Returns:
        Exit code: 0, or 1 if images could not be used or a metric had no value on one; the report counts them.

    Raises:
        UserError: a mistake in options, data or checkpoints.
    """
    run = parse(root, argv, is_train=False)
    try:
        with contact_lost_ends():
            return int(_test(run) > 0)
    finally:
        stop()


def _test(run: Run) -> int:
    """Run the test; return how many images and values are missing."""
    opt, folder = run.opt, Path(run.opt["path"]["run"])
    left_out: list[str] = []
    datasets = _datasets(opt, left_out)
    metrics = _metrics(opt, left_out)
    unusable = [f"{name}: {reason}" for name, dataset in datasets.items() for reason in dataset.left_out]
    if run.save_lr:
        on_rank_0(lambda: _save_lr(datasets, run.save_lr))
    model = build_model(opt)
    parts = {name: _applicable(name, dataset, model, metrics, left_out) for name, dataset in datasets.items()}
    rank, world_size = run.process.rank, run.process.world_size
    if rank == 0:
        for root, ignored in _other_files(datasets.values()):
            print(f"{root}: {ignored}")  # noqa: T201
        print(*left_out, *unusable, sep="\n", end="\n" if left_out or unusable else "")  # noqa: T201
    on_rank_0(lambda: _prepare_folder(folder, opt["name"]))
    rows, shown_items, seconds, failures = [], [], [], []
    for name, dataset in datasets.items():
        shown = {round((i + 0.5) * len(dataset) / opt["panels"] - 0.5) for i in range(opt["panels"])}
        own, own_shown = [], []
        for restored in evaluate(parts[name].restorers, dataset, parts[name].metrics, model.device, rank, world_size):
            own.append((restored.index, restored.rows))
            seconds += restored.seconds.items()
            failures += restored.failures
            if restored.index in shown:
                item = show(restored, dataset.opt, model.oracles, parts[name].metrics, folder / "panels")
                own_shown.append((restored.index, item))
        rows += gather_rows(own)
        shown_items += [item for _, item in sorted(entry for part in gather(own_shown) for entry in part)]
    costs = _costs(model, [entry for part in gather(seconds) for entry in part])
    missing = [*unusable, *(failure for part in gather(failures) for failure in part)]
    if rank == 0:
        _write(run, rows, costs, shown_items, datasets, metrics, [*left_out, *_missing_note(missing)])
    return len(missing)


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


def _kernel_tables(rows: list[Row], datasets: dict[str, Dataset]) -> dict[str, report.KernelTable]:
    """What the report shows kernel by kernel: the data sets whose protocol says so."""
    tables = {}
    for name, dataset in datasets.items():
        protocol = PROTOCOLS.get(dataset.opt.get("protocol"))
        if protocol and protocol.table == "kernels":
            cases = [(case.label, case.kernel, case.noise_sigma_255) for case in dataset.cases]
            values = means([row for row in rows if row.dataset == name], "method", "metric", "kernel")
            tables[name] = report.KernelTable(cases, values, protocol.note)
    return tables


def _kernel_list(
    name: str, dataset_opt: dict, rows: list[Row], metrics: list[Metric], table: report.KernelTable | None
) -> list[report.Table]:
    """What the page shows kernel by kernel: every data set that has several."""
    values = means([row for row in rows if row.dataset == name], "kernel", "method", "metric")
    others, scale = None, dataset_opt["scale"]
    if table and report.is_whole(dataset_opt):
        others = report.published_kernels(table, published_cases(name, dataset_opt["protocol"], scale))
    return report.kernel_list(name, values, metrics, others, scale) if values else []


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
    metrics: list[Metric],
    notes: list[str],
) -> None:
    opt, folder = run.opt, Path(run.opt["path"]["run"])
    with refusal_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    measured, by_kernel = means(rows), _kernel_tables(rows, datasets)
    weights = {key: path for key, path in opt["path"].items() if key.startswith("pretrain_network")}
    weights |= {f"baselines.{name}.path": baseline["path"] for name, baseline in opt["baselines"].items()}
    weights |= {
        f"val.metrics.{metric.name}.weights": str(metric.weights_file()) for metric in metrics if metric.kind.weights
    }
    notes = [
        MEAN_NOTE + "; ".join(f"{metric.name} {opt['val']['metrics'][metric.name]}" for metric in metrics),
        COST_NOTE.format(*LR_SIZE, device_name(run.process.device)),
        *([ORACLE_NOTE] if "network_t" in opt else []),
        *notes,
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
