"""The report of a test: report.md, metrics.csv, metrics.json and picture panels, in a folder of its own."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import NamedTuple
from urllib.parse import quote

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tabulate import tabulate

from mrda_eval.published import Published, published_cases, published_rows
from mrda_metric import Metric
from mrda_utils import __version__
from mrda_utils.files import json_value, write_text

Means = dict[tuple[str, str, str], float]
"""(dataset, method, metric) -> mean over images and kernels."""


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    return sha256(Path(path).read_bytes()).hexdigest()


def _harmless(row: tuple) -> list:
    """With ./ before what a spreadsheet would compute, such as the name of an image that begins with =."""
    return [f"./{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@")) else cell for cell in row]


def write_csv(rows: Iterable[tuple], fields: tuple[str, ...], path: Path) -> None:
    """One line for each row, under the names of the fields; whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(fields)
    writer.writerows(map(_harmless, rows))
    write_text(text.getvalue(), path)


class Cost(NamedTuple):
    """What a method costs."""

    parameters: int | None
    mult_adds: int | None
    seconds: float
    """Median of the LR images of this test."""


def write_json(
    means: Means, costs: dict[str, Cost], name: str, options_sha256: str, weights: dict[str, str], path: Path
) -> None:
    """Means and costs by method, and how they came about: hashes of options and weights, versions.

    A mean that is not finite, the PSNR of identical images, is the text "inf".
    """
    content = {
        "name": name,
        "means": [
            dict(zip(("dataset", "method", "metric"), key, strict=True), value=json_value(value))
            for key, value in means.items()
        ],
        "costs": {method: cost._asdict() for method, cost in costs.items()},
        "options_sha256": options_sha256,
        "weights_sha256": {key: file_hash(file) for key, file in weights.items()},
        "versions": {
            "mrda": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "basicsr", "numpy", "opencv-python")},
        },
    }
    write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", path)


def is_whole(dataset: dict) -> bool:
    """Whether published values may stand beside ours: whole images of the whole set, 21x21 kernels."""
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


def tables(
    means: Means,
    datasets: dict[str, dict],
    metrics: Sequence[Metric],
    scale: int,
    fmt: str,
    by_kernel: dict[str, KernelTable] | None = None,
) -> str:
    """Text of all `comparisons`, in a format of `tabulate`."""
    return text_of(comparisons(means, datasets, metrics, scale, by_kernel), fmt)


def text_of(found: list[Table], fmt: str) -> str:
    """Tables one below the other, in a format of `tabulate`."""
    parts = []
    for table in found:
        parts += [table.title, table.note] if table.note else [table.title]
        parts.append(tabulate(table.rows, table.headers, tablefmt=fmt, floatfmt=table.formats, missingval="-"))
    return "\n\n".join(parts)


def comparisons(
    means: Means,
    datasets: dict[str, dict],
    metrics: Sequence[Metric],
    scale: int,
    by_kernel: dict[str, KernelTable] | None = None,
) -> list[Table]:
    """One table a data set, or one a metric: our methods, then published ones where the protocol matches.

    Args:
        means: see `Means`.
        datasets: options of each data set by its name.
        metrics: what was measured.
        scale: upscaling factor.
        by_kernel: data sets that are to have a column a kernel.
    """
    found = []
    for name, opt in datasets.items():
        measured = {metric for dataset, _, metric in means if dataset == name}
        own = [metric for metric in metrics if metric.name in measured]
        methods = list(dict.fromkeys(method for dataset, method, _ in means if dataset == name))
        title = f"{name}, {opt.get('protocol', 'LR images as given')}, x{scale}"
        if by_kernel and name in by_kernel:
            table = by_kernel[name]
            note = f"{opt['protocol']}: {table.note}" if table.note else ""
            kernels = list(dict.fromkeys(kernel for _, kernel, _ in table.cases))
            for metric in own:
                rows = _kernel_rows(table, methods, metric.name)
                if is_whole(opt) and is_psnr(metric, scale):
                    rows += _published_kernel_rows(table, published_cases(name, opt["protocol"], scale))
                formats = ("", "g", *[metric.format] * (len(kernels) + 1))
                headers = ["method", "noise", *kernels, "mean"]
                found.append(Table(name, f"{title}, {metric.name}", note, headers, rows, formats))
        elif own:
            rows = [[method, *(means[name, method, metric.name] for metric in own)] for method in methods]
            if is_whole(opt) and any(metric.is_published_for(scale) for metric in own):
                rows += _published_rows(own, published_rows(name, opt["protocol"], scale), scale)
            headers = ["method", *(metric.name for metric in own)]
            found.append(Table(name, title, "", headers, rows, ("", *(metric.format for metric in own))))
    return found


def _published_rows(metrics: list[Metric], published: list[Published], scale: int) -> list[list]:
    """A row a method: its PSNR and SSIM under those of our metrics that measure them in the same way."""
    rows = []
    for row in published:
        values = {"calculate_psnr": row.psnr, "calculate_ssim": row.ssim}
        cells = (values[metric.type] if metric.is_published_for(scale) else None for metric in metrics)
        rows.append([f"{row.method} (published)", *cells])
    return rows


def _kernel_rows(table: KernelTable, methods: list[str], metric: str) -> list[list]:
    """A row a method and noise level: the value of each kernel, and their mean."""
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
    """One table a metric with a row a kernel and a column a method; none where there is one kernel.

    Args:
        dataset: its name, for the titles.
        values: (kernel, method, metric) -> mean over images.
        metrics: what was measured.
        published: PSNR of others, (method, "psnr", kernel) -> value, to stand beside ours; None for none.
        scale: upscaling factor.
    """
    kernels, methods, measured = (list(dict.fromkeys(part)) for part in zip(*values, strict=True))
    found = []
    for metric in metrics if len(kernels) > 1 else ():
        if metric.name not in measured:
            continue
        beside = published.values if published and is_psnr(metric, scale) else {}
        others = dict.fromkeys(method for method, _, _ in beside)
        rows = [
            [
                kernel,
                *(values.get((kernel, method, metric.name)) for method in methods),
                *(beside[other, "psnr", kernel] for other in others),
            ]
            for kernel in kernels
        ]
        headers = ["kernel", *methods, *others]
        found.append(Table(dataset, metric.name, "", headers, rows, ("", *[metric.format] * (len(headers) - 1))))
    return found


def cost_table(costs: dict[str, Cost]) -> Table:
    """Parameters, Mult-Adds and time of each method, as in the paper's tables."""
    rows = [
        [method, *(None if part is None else part / unit for part, unit in zip(cost, (1e6, 1e9, 1), strict=True))]
        for method, cost in costs.items()
    ]
    headers = ["method", "Param (M)", "Mult-Adds (G)", "median s / image"]
    return Table("", "Cost", "", headers, rows, ("", ".2f", ".2f", ".3f"))


def write_markdown(text: str, notes: list[str], panels: list[Path], path: Path) -> None:
    """The tables, what was left out and how to read them, and the panels."""
    pictures = [f"![{panel.stem}]({quote(panel.relative_to(path.parent).as_posix())})" for panel in panels]
    write_text("\n\n".join([f"# {path.parent.name}", text, *notes, *pictures]) + "\n", path)


def panel(pictures: dict[str, np.ndarray], kernel: np.ndarray | None, height: int = 256) -> Image.Image:
    """Pictures side by side under their names, the blur kernel, if any, in a corner of the first.

    Args:
        pictures: name to (H, W, 3) uint8 BGR; each is brought to the same height, enlarged without smoothing.
        kernel: (k, k) blur kernel, or None.
        height: of the pictures, pixels.
    """
    font, header, gap = ImageFont.load_default(14), 22, 4
    shown = []
    for image in pictures.values():
        width = round(image.shape[1] * height / image.shape[0])
        method = cv2.INTER_NEAREST if image.shape[0] <= height else cv2.INTER_AREA
        shown.append(Image.fromarray(cv2.resize(image, (width, height), interpolation=method)[..., ::-1]))
    if kernel is not None:
        inset = Image.fromarray((255 * kernel / kernel.max()).astype(np.uint8))
        shown[0].paste(inset.resize((63, 63), Image.Resampling.NEAREST).convert("RGB"), (0, height - 63))
    canvas = Image.new("RGB", (sum(image.width + gap for image in shown) - gap, height + header), "white")
    draw, left = ImageDraw.Draw(canvas), 0
    for name, image in zip(pictures, shown, strict=True):
        draw.text((left + 2, 3), name, fill="black", font=font)
        canvas.paste(image, (left, header))
        left += image.width + gap
    return canvas
