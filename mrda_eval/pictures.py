"""What the report shows of one item of a test set: a panel, and a viewer of the page."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mrda_data.degradation.kernels import task_kernel
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
    """Write the panel; return it and what the page shows."""
    item, name = restored.item, dataset_opt["name"]
    one_kernel = "task" in item and dataset_opt["protocol"] != "realesrgan"  # which has several
    kernel = task_kernel(item["task"], dataset_opt["kernel_size"]).numpy() if one_kernel else None
    psnr = next((metric for metric in metrics if metric.type == "calculate_psnr"), None)
    values = {row.method: f" {_text(psnr, row)}" for row in restored.rows if psnr and row.metric == psnr.name}
    pictures = _cropped(restored, dataset_opt["scale"], PANEL_SIDE)
    titled = {method + values.get(method, ""): image for method, image in pictures.items()}
    name_of_image = Path(item["lq_path"])
    stem = name_of_image.with_name(_plain_stem(name_of_image)).as_posix().replace("/", "_")
    if len(stem.encode()) > LONGEST_NAME:
        stem = sha256(stem.encode()).hexdigest()
    path = folder / name / f"{stem}_{item['kernel']}.png"
    with refusal_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        report.panel(titled, kernel).save(file, "PNG")
    return Shown(name, path, _viewer(restored, dataset_opt["scale"], oracles, metrics, kernel))


def save_images(restored: Restored, folder: Path) -> None:
    """Write what every method made of an item: `folder`/data set/method/degradation/image.png."""
    name = Path(restored.item["lq_path"])
    file = f"{_plain_stem(name)}.png"
    for method, image in restored.sr.items():
        path = folder / method / restored.item["kernel"] / name.parent / file
        with refusal_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(".png", image)[1]
        with written_whole(path) as opened:
            opened.write(data)


def _plain_stem(name: Path) -> str:
    """The name without .png; another suffix stays in it, so that a.jpg and a.png are told apart."""
    return name.stem if name.suffix.lower() == ".png" else f"{name.stem}_{name.suffix[1:].lower()}"


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
