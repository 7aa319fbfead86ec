"""Output of a test: tables on the console, report.md, report.tex, index.html, metrics.csv and metrics.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from mrda_data.protocols import PROTOCOLS
from mrda_eval import page, report
from mrda_eval.complexity import LR_SIZE, device_name
from mrda_eval.evaluation import Row, means
from mrda_eval.pictures import IMAGES, VIEWER_SIDE, Example
from mrda_eval.published import published_cases
from mrda_eval.spread import Spread, spreads
from mrda_eval.tables import (
    KernelTable,
    MethodCost,
    Table,
    comparisons,
    cost_table,
    is_oracle,
    is_whole,
    kernel_list,
    published_kernels,
    spread_table,
    text_of,
)
from mrda_eval.words import metric_in_words, set_in_words
from mrda_metric import Metric
from mrda_options.command_line import Run
from mrda_utils import __version__
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
MEAN_NOTE = "Means over images, and over kernels where they have no column each. The best value of each column is bold."
INCOMPLETE_NOTE = "Incomplete: the test was interrupted; these are the means of what it had measured until then."


class Results(NamedTuple):
    """All that a test found."""

    rows: list[Row]
    costs: dict[str, MethodCost]
    examples: list[Example]
    datasets: dict[str, Dataset]
    metrics: list[Metric]
    notes: list[str]
    """What is missing."""
    complete: bool


def write_results(run: Run, results: Results) -> None:
    """Print the tables and write the files into the test's folder."""
    opt, folder = run.opt, Path(run.opt["path"]["run"])
    with refusal_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    measured, by_kernel = means(results.rows), _kernel_tables(results.rows, results.datasets)
    found = spreads(results.rows, [method for _, method, _ in measured if not is_oracle(method)][-1])
    write_text(run.option_text, folder / f"{opt['name']}.yml")  # first: it marks the folder as ours
    report.write_csv(results.rows, Row._fields, folder / "metrics.csv")
    hashes = opt["name"], run.options_sha256, _weights(opt, results.metrics)
    report.write_json(measured, results.costs, *hashes, folder / "metrics.json", found, results.complete)
    dataset_opts = {
        name: dataset.opt if _is_measured_whole(dataset, results.rows) else {**dataset.opt, "max_images": 0}
        for name, dataset in results.datasets.items()
    }
    tables = comparisons(measured, dataset_opts, results.metrics, opt["scale"], by_kernel)
    costs = cost_table(results.costs)
    sections = [
        _section(name, dataset_opt, tables, found, by_kernel, results) for name, dataset_opt in dataset_opts.items()
    ]
    notes = [*([] if results.complete else [INCOMPLETE_NOTE]), *_notes(run, results)]
    title = opt["name"] if results.complete else f"{opt['name']} (incomplete)"
    _write_texts(title, tables, sections, costs, notes, results, folder)
    subtitle = f"x{opt['scale']}, mrda {__version__}, {device_name(run.process.device)}"
    page.write_page(title, subtitle, sections, costs, [*notes, PICTURE_NOTE], folder / "index.html")
    print(f"\n{text_of([*tables, costs], 'simple')}\n")  # noqa: T201
    for about, path in (("report:  ", "report.md"), ("LaTeX:   ", "report.tex"), ("page:    ", "index.html")):
        print(f"{about} {folder / path}")  # noqa: T201
    print(f"pictures: {folder / 'panels'}")  # noqa: T201
    if run.opt["val"]["save_img"]:
        print(f"SR:       {folder / IMAGES}")  # noqa: T201


def _write_texts(
    title: str,
    tables: list[Table],
    sections: list[page.Section],
    costs: Table,
    notes: list[str],
    results: Results,
    folder: Path,
) -> None:
    """Write report.md and report.tex: comparisons, spread over images, kernel by kernel."""
    spread = [table for section in sections for table in section.tables if table not in tables]
    kernels = [
        table._replace(title=f"{table.dataset}, {table.title}, kernel by kernel")
        for section in sections
        for table in section.kernels
    ]
    parts = [report.markdown([*tables, *spread, *kernels, costs]), *notes]
    report.write_markdown(title, parts, [item.panel for item in results.examples], folder / "report.md")
    write_text(report.latex([*tables, *spread, *kernels, costs]), folder / "report.tex")


def _is_measured_whole(dataset: Dataset, rows: list[Row]) -> bool:
    """Whether all images have all values: published ones, of whole sets, do not stand beside others."""
    counts = Counter((row.method, row.metric) for row in rows if row.dataset == dataset.opt["name"])
    return not dataset.left_out and set(counts.values()) == {len(dataset)}


def _section(
    name: str,
    dataset_opt: dict,
    tables: list[Table],
    found: list[Spread],
    by_kernel: dict[str, KernelTable],
    results: Results,
) -> page.Section:
    """What the page shows of a data set."""
    spread = spread_table(name, found, results.metrics)
    own = [table for table in tables if table.dataset == name] + ([spread] if spread else [])
    kernels = _kernel_list(name, dataset_opt, results.rows, results.metrics, by_kernel.get(name))
    return page.Section(name, own, kernels, [item.viewer for item in results.examples if item.dataset == name])


def _notes(run: Run, results: Results) -> list[str]:
    """How to read the tables."""
    metrics = "; ".join(map(metric_in_words, results.metrics))
    sets = "; ".join(set_in_words(dataset.opt) for dataset in results.datasets.values())
    return [
        MEAN_NOTE,
        f"Test sets: {sets}.",
        f"Metrics: {metrics}.",
        COST_NOTE.format(*LR_SIZE, device_name(run.process.device)),
        *([ORACLE_NOTE] if "network_t" in run.opt else []),
        *results.notes,
    ]


def _weights(opt: dict, metrics: list[Metric]) -> dict[str, str]:
    """Files of weights, by the option that names them."""
    networks = {name: baseline for name, baseline in opt["baselines"].items() if "path" in baseline}
    return {
        **{key: path for key, path in opt["path"].items() if key.startswith("pretrain_network")},
        **{f"baselines.{name}.path": baseline["path"] for name, baseline in networks.items()},
        **{
            f"val.metrics.{metric.name}.weights": str(metric.weights_file())
            for metric in metrics
            if metric.kind.weights
        },
    }


def _kernel_tables(rows: list[Row], datasets: dict[str, Dataset]) -> dict[str, KernelTable]:
    """What the report shows kernel by kernel: the data sets whose protocol says so."""
    tables = {}
    for name, dataset in datasets.items():
        protocol = PROTOCOLS.get(dataset.opt.get("protocol"))
        if protocol and protocol.table == "kernels":
            cases = [(case.label, case.kernel, case.noise_sigma_255) for case in dataset.cases]
            values = means([row for row in rows if row.dataset == name], "method", "metric", "kernel")
            tables[name] = KernelTable(cases, values, protocol.note)
    return tables


def _kernel_list(
    name: str, dataset_opt: dict, rows: list[Row], metrics: list[Metric], table: KernelTable | None
) -> list[Table]:
    """What the page shows kernel by kernel: every data set that has several."""
    values = means([row for row in rows if row.dataset == name], "kernel", "method", "metric")
    others, scale = None, dataset_opt["scale"]
    if table and is_whole(dataset_opt):
        others = published_kernels(table, published_cases(name, dataset_opt["protocol"], scale))
    return kernel_list(name, values, metrics, others, scale) if values else []
