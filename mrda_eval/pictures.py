"""What the report shows of one item of a test set: a panel, and a viewer of the page."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mrda_data.degradation.kernels import is_classic, task_kernel
from mrda_eval import page, report
from mrda_eval.evaluation import Restored, Row
from mrda_metric import Metric
from mrda_utils.files import refusal_named, written_whole

PANEL_SIDE, VIEWER_SIDE = 160, 480  # HR pixels that panels and the page show of each image
LONGEST_NAME = 150  # bytes; file systems hold 255


class Shown(NamedTuple):
    """One item of a test set in pictures."""

    dataset: str
    panel: Path
    viewer: page.Viewer


def show(restored: Restored, dataset_opt: dict, oracles: set[str], metrics: list[Metric], folder: Path) -> Shown:
    """Write the panel into a folder of its data set's name; return it and what the page shows."""
    path = folder / dataset_opt["name"] / f"{panel_name(restored)}.png"
    write_picture(panel(restored, dataset_opt, metrics), path)
    viewer = _viewer(restored, dataset_opt["scale"], oracles, metrics, _kernel(restored, dataset_opt))
    return Shown(dataset_opt["name"], path, viewer)


def panel_name(restored: Restored) -> str:
    """Of an item's files: its image and kernel."""
    item = restored.item
    stem = Path(item["lq_path"]).with_suffix("").as_posix().replace("/", "_")
    if len(stem.encode()) > LONGEST_NAME:
        stem = sha256(stem.encode()).hexdigest()
    return f"{stem}_{item['kernel']}"


def panel(restored: Restored, dataset_opt: dict, metrics: list[Metric]) -> Image.Image:
    """LR, every method with its PSNR and ground truth side by side."""
    psnr = next((metric for metric in metrics if metric.type == "calculate_psnr"), None)
    values = {row.method: f" {_text(psnr, row)}" for row in restored.rows if psnr and row.metric == psnr.name}
    pictures = _cropped(restored, dataset_opt["scale"], PANEL_SIDE)
    titled = {method + values.get(method, ""): image for method, image in pictures.items()}
    return report.panel(titled, _kernel(restored, dataset_opt))


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG file, folders included."""
    with refusal_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        picture.save(file, "PNG")


def _kernel(restored: Restored, dataset_opt: dict) -> np.ndarray | None:
    """The blur kernel of an item that has one."""
    task = restored.item.get("task")
    if not is_classic(task):
        return None
    return task_kernel(task, dataset_opt["kernel_size"]).numpy()


def _text(metric: Metric, row: Row) -> str:
    return f"{row.value:{metric.format}}{metric.kind.unit}"


def _cropped(restored: Restored, scale: int, side: int) -> dict[str, np.ndarray]:
    """Central part of LR, every method and, where it is known, ground truth: at most `side` HR pixels each way."""
    shape = [scale * length for length in restored.lq.shape[:2]]
    height, width = (min(side, length) // scale for length in shape)
    top, left = ((length // scale - part) // 2 for length, part in zip(shape, (height, width), strict=True))

    def crop(image: np.ndarray, factor: int) -> np.ndarray:
        return image[factor * top : factor * (top + height), factor * left : factor * (left + width)]

    gt = {} if restored.gt is None else {"GT": restored.gt}
    return {"LR": crop(restored.lq, 1)} | {name: crop(image, scale) for name, image in {**restored.sr, **gt}.items()}


def _viewer(
    restored: Restored, scale: int, oracles: set[str], metrics: list[Metric], kernel: np.ndarray | None
) -> page.Viewer:
    """All pictures; at first bicubic upsampling against the last method that is no oracle, or LR against bicubic."""
    values, formats = {method: [] for method in restored.sr}, {metric.name: metric.format for metric in metrics}
    for row in restored.rows:
        values[row.method].append(f"{row.metric}\N{NO-BREAK SPACE}{row.value:{formats[row.metric]}}")
    images = _cropped(restored, scale, VIEWER_SIDE)
    pictures = [
        page.Picture(name, ", ".join(values.get(name, [])), page.picture_uri(image, lossless=name == "LR"))
        for name, image in images.items()
    ]
    methods = [method for method in restored.sr if method not in oracles]
    left = methods[0] if len(methods) > 1 else "LR"
    height, width = images["Bicubic"].shape[:2]
    uri = None
    if kernel is not None:
        uri = page.picture_uri(np.rint(255 * kernel / kernel.max()).astype(np.uint8), lossless=True)
    item = restored.item
    return page.Viewer(item["lq_path"], item["kernel"], width, height, uri, pictures, left, methods[-1])
