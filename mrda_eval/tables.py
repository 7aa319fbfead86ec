"""What a report's tables show: our and published results, kernels, spread over images, costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, product
from operator import itemgetter
from statistics import fmean
from typing import NamedTuple

from tabulate import tabulate

from mrda_eval.published import Published, published_cases, published_rows
from mrda_eval.spread import Spread
from mrda_metric import Metric

Means = dict[tuple[str, str, str], float]
"""(dataset, method, metric) -> mean over images and kernels."""


class MethodCost(NamedTuple):
    """What a method costs."""

    parameters: int | None
    mult_adds: int | None
    seconds: float
    """Median of the LR images of this test."""


def is_whole(dataset: dict) -> bool:
    """Whether published values may be compared with ours: whole images of the whole set, 21x21 kernels."""
    return "max_images" not in dataset and "max_side" not in dataset and dataset.get("kernel_size") == 21


def is_psnr(metric: Metric, scale: int) -> bool:
    """Whether it is the PSNR of published tables."""
    return metric.type == "calculate_psnr" and metric.is_published_for(scale)


class KernelTable(NamedTuple):
    """One data set, case by case: kernels at noise levels."""

    cases: list[tuple[str, str, float]]
    """Label, kernel and noise level (0-255) of each case, one level after the other."""
    values: dict[tuple[str, ...], float]
    """(method, metric, label) -> mean over images."""
    note: str = ""
    """What a reader must know about the kernels."""


class Table(NamedTuple):
    """What a table shows, in whatever format."""

    dataset: str
    title: str
    note: str
    headers: list[str]
    rows: list[list]
    """The first cell is a name; of the others None is a value that there is not."""
    formats: tuple[str, ...]
    """Format of each column's numbers."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Row and column of the best values; oracles do not compete."""


def is_oracle(method: str) -> bool:
    """Whether a method looks at the ground truth, by its name in reports."""
    return method.endswith("(oracle)")


def _best(places: dict[tuple[int, int], str], rows: list[list], metric: Metric) -> set[tuple[int, int]]:
    """The best of the values at these places, of these methods; empty for fewer than two values."""
    values = {
        (row, column): rows[row][column]
        for (row, column), method in places.items()
        if rows[row][column] is not None and not is_oracle(method)
    }
    if len(values) < 2:
        return set()
    best = (max if metric.kind.higher_is_better else min)(values.values())
    return {place for place, value in values.items() if format(value, metric.format) == format(best, metric.format)}


def cell_texts(table: Table, bold: Callable[[str], str] = str) -> list[list[str]]:
    """The cells as a reader sees them, without heads; `bold` makes the best ones stand out."""
    found = []
    for y, row in enumerate(table.rows):
        texts = [
            "-" if value is None else value if isinstance(value, str) else format(value, form)
            for value, form in zip(row, table.formats, strict=True)
        ]
        found.append([bold(text) if (y, x) in table.best else text for x, text in enumerate(texts)])
    return found


def text_of(found: list[Table], fmt: str, bold: Callable[[str], str] = str) -> str:
    """Tables one below the other, in a format of `tabulate`; the best values stand out as `bold` makes them."""
    parts = []
    for table in found:
        parts += [table.title, table.note] if table.note else [table.title]
        align = ["left", *["right"] * (len(table.headers) - 1)]
        cells = cell_texts(table, bold)
        parts.append(tabulate(cells, table.headers, tablefmt=fmt, colalign=align, disable_numparse=True))
    return "\n\n".join(parts)


def comparisons(
    means: Means,
    datasets: dict[str, dict],
    metrics: Sequence[Metric],
    scale: int,
    by_kernel: dict[str, KernelTable] | None = None,
) -> list[Table]:
    """One table per data set, or per metric: our methods, then published ones where the protocol matches.

    Args:
        means: see `Means`.
        datasets: options of each data set by its name.
        metrics: what was measured.
        scale: upscaling factor.
        by_kernel: data sets that get a column per kernel.
    """
    found = []
    for name, opt in datasets.items():
        measured = {metric for dataset, _, metric in means if dataset == name}
        own = [metric for metric in metrics if metric.name in measured]
        methods = list(dict.fromkeys(method for dataset, method, _ in means if dataset == name))
        title = f"{name}, {opt.get('protocol', 'LR images as given')}, x{scale}"
        if by_kernel and name in by_kernel:
            found += _kernel_comparisons(name, opt, title, by_kernel[name], methods, own, scale)
        elif own:
            rows = [[method, *(means[name, method, metric.name] for metric in own)] for method in methods]
            if is_whole(opt) and any(metric.is_published_for(scale) for metric in own):
                rows += _published_rows(own, published_rows(name, opt["protocol"], scale), scale)
            headers = ["method", *(metric.name for metric in own)]
            best = set()
            for column, metric in enumerate(own, 1):
                best |= _best({(y, column): row[0] for y, row in enumerate(rows)}, rows, metric)
            formats = ("", *(metric.format for metric in own))
            found.append(Table(name, title, "", headers, rows, formats, frozenset(best)))
    return found


def _kernel_comparisons(
    name: str, opt: dict, title: str, table: KernelTable, methods: list[str], metrics: list[Metric], scale: int
) -> list[Table]:
    """One table per metric with a column per kernel and a row per method and noise level."""
    note = f"{opt['protocol']}: {table.note}" if table.note else ""
    kernels = list(dict.fromkeys(kernel for _, kernel, _ in table.cases))
    headers, found = ["method", "noise", *kernels, "mean"], []
    for metric in metrics:
        rows = _kernel_rows(table, methods, metric.name)
        if is_whole(opt) and is_psnr(metric, scale):
            rows += _published_kernel_rows(table, published_cases(name, opt["protocol"], scale))
        best = set()
        for column, level in product(range(2, len(headers)), {row[1] for row in rows}):
            best |= _best({(y, column): row[0] for y, row in enumerate(rows) if row[1] == level}, rows, metric)
        formats = ("", "g", *[metric.format] * (len(kernels) + 1))
        found.append(Table(name, f"{title}, {metric.name}", note, headers, rows, formats, frozenset(best)))
    return found


def _published_rows(metrics: list[Metric], published: list[Published], scale: int) -> list[list]:
    """A row per method: its PSNR and SSIM under those of our metrics that measure them in the same way."""
    rows = []
    for row in published:
        values = {"calculate_psnr": row.psnr, "calculate_ssim": row.ssim}
        cells = (values[metric.type] if metric.is_published_for(scale) else None for metric in metrics)
        rows.append([f"{row.method} (published)", *cells])
    return rows


def _kernel_rows(table: KernelTable, methods: list[str], metric: str) -> list[list]:
    """A row per method and noise level: the value of each kernel, and their mean."""
    rows = []
    for method in methods:
        for level, cases in groupby(table.cases, key=itemgetter(2)):
            values = [table.values.get((method, metric, label)) for label, _, _ in cases]
            rows.append([method, level, *values, fmean(values) if None not in values else None])
    return rows


def _published_kernel_rows(table: KernelTable, published: dict[str, tuple[float, ...]]) -> list[list]:
    methods = [f"{method} (published)" for method in published]
    return _kernel_rows(published_kernels(table, published), methods, "psnr")


def published_kernels(table: KernelTable, published: dict[str, tuple[float, ...]]) -> KernelTable:
    """The table with published values in the place of ours: PSNR, as metric "psnr", in the order of the cases."""
    values = {
        (f"{method} (published)", "psnr", label): value
        for method, row in published.items()
        for (label, _, _), value in zip(table.cases, row, strict=True)
    }
    return table._replace(values=values)


def kernel_list(
    dataset: str,
    values: dict[tuple[str, ...], float],
    metrics: Sequence[Metric],
    published: KernelTable | None,
    scale: int,
) -> list[Table]:
    """One table per metric with a row per kernel and a column per method; none where there is one kernel.

    Args:
        dataset: its name, for the titles.
        values: (kernel, method, metric) -> mean over images.
        metrics: what was measured.
        published: PSNR of others, (method, "psnr", kernel) -> value; None for none.
        scale: upscaling factor.
    """
    kernels, methods, measured = (list(dict.fromkeys(part)) for part in zip(*values, strict=True))
    found = []
    for metric in metrics if len(kernels) > 1 else ():
        if metric.name not in measured:
            continue
        known = published.values if published and is_psnr(metric, scale) else {}
        others = dict.fromkeys(method for method, _, _ in known)
        rows = [
            [
                kernel,
                *(values.get((kernel, method, metric.name)) for method in methods),
                *(known[other, "psnr", kernel] for other in others),
            ]
            for kernel in kernels
        ]
        headers = ["kernel", *methods, *others]
        formats, best = ("", *[metric.format] * (len(headers) - 1)), set()
        for y in range(len(rows)):
            best |= _best({(y, x): method for x, method in enumerate(headers[1:], 1)}, rows, metric)
        found.append(Table(dataset, metric.name, "", headers, rows, formats, frozenset(best)))
    return found


def spread_table(dataset: str, found: list[Spread], metrics: Sequence[Metric]) -> Table | None:
    """Standard deviation over images and difference to the reference method; None for a set of a single image.

    Args:
        dataset: its name.
        found: spreads of all data sets.
        metrics: what was measured.
    """
    own = {(spread.method, spread.metric): spread for spread in found if spread.dataset == dataset}
    if not own:
        return None
    first = next(iter(own.values()))
    methods = list(dict.fromkeys(method for method, _ in own))
    shown = [metric for metric in metrics if any(name == metric.name for _, name in own)]
    headers, rows = ["method"], [[method] for method in methods]
    for metric in shown:
        found = [own.get((method, metric.name)) for method in methods]
        compared = any(spread and spread.difference is not None for spread in found)
        headers += [f"{metric.name}: std", *([f"{first.reference} - it"] if compared else [])]
        for row, spread in zip(rows, found, strict=True):
            row.append(spread and format(spread.std, metric.format))
            if compared:
                row.append(spread and _interval(spread, metric))
    note = (
        f"Standard deviation over {first.images} images, each with the mean over its kernels; difference of the means, "
        "with its 95 % interval: paired, bootstrap over images."
    )
    return Table(dataset, f"{dataset}, spread over images", note, headers, rows, ("",) * len(headers))


def _interval(spread: Spread, metric: Metric) -> str | None:
    if spread.difference is None:
        return None
    low, high = (format(value, f"+{metric.format}") for value in (spread.low, spread.high))
    return f"{spread.difference:+{metric.format}} [{low}, {high}]"


def cost_table(costs: dict[str, MethodCost]) -> Table:
    """Parameters, Mult-Adds and time of each method, as in the paper's tables."""
    rows = [
        [method, *(None if part is None else part / unit for part, unit in zip(cost, (1e6, 1e9, 1), strict=True))]
        for method, cost in costs.items()
    ]
    headers = ["method", "Param (M)", "Mult-Adds (G)", "median s / image"]
    return Table("", "Cost", "", headers, rows, ("", ".2f", ".2f", ".3f"))
