"""What the report shows of one item of a test set: a panel, and a viewer of the page."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from mrda_data.degradation.kernels import is_classic, task_kernel
from mrda_eval import page
from mrda_eval.evaluation import Restored, Row
from mrda_eval.panel import boxed, side_by_side, write_picture
from mrda_eval.tables import is_oracle
from mrda_metric import Metric
from mrda_utils.files import write_bytes

PANEL_SIDE, VIEWER_SIDE = 160, 480  # HR pixels that panels and the page show of each image
IMAGES = "visualization"  # folder of the SR images, as in BasicSR
LONGEST_NAME = 150  # bytes; file systems allow 255


class Example(NamedTuple):
    """One item of a test set in pictures."""

    dataset: str
    panel: Path
    viewer: page.Viewer


class Box(NamedTuple):
    """Part of an image, LR pixels."""

    top: int
    left: int
    height: int
    width: int


def write_example(
    restored: Restored, dataset_opt: dict, metrics: list[Metric], folder: Path, crops: dict[str, list[int]]
) -> Example:
    """Write the panel, as PNG and PDF, into a folder of its data set's name; return it and what the page shows.

    Args:
        restored: an item and what methods made of it.
        dataset_opt: of its data set.
        metrics: what was measured.
        folder: of all panels.
        crops: [left, top, side] in HR pixels, by the name of an image without suffix.
    """
    path = folder / dataset_opt["name"] / f"{panel_name(restored)}.png"
    picture = panel(restored, dataset_opt, metrics, crops.get(image_name(restored.item["lq_path"])))
    for suffix in (".png", ".pdf"):
        write_picture(picture, path.with_suffix(suffix))
    return Example(
        dataset_opt["name"], path, _viewer(restored, dataset_opt["scale"], metrics, _kernel(restored, dataset_opt))
    )


def image_name(lq_path: str) -> str:
    """An item's image without suffix, as `val.panel_crop` names it."""
    return PurePosixPath(lq_path).with_suffix("").as_posix()


def panel_name(restored: Restored) -> str:
    """Of an item's files: its image and kernel."""
    name = Path(restored.item["lq_path"])
    stem = name.with_name(_plain_stem(name)).as_posix().replace("/", "_")
    if len(stem.encode()) > LONGEST_NAME:
        stem = sha256(stem.encode()).hexdigest()
    return f"{stem}_{restored.item['kernel']}"


def panel(restored: Restored, dataset_opt: dict, metrics: list[Metric], crop: list[int] | None = None) -> Image.Image:
    """LR, every method with its PSNR and ground truth side by side: the centre, or a part, `crop` [left, top, side].

    With `crop` the whole image comes first, with a box around the part.
    """
    scale = dataset_opt["scale"]
    psnr = next((metric for metric in metrics if metric.type == "calculate_psnr"), None)
    values = {row.method: f" {_text(psnr, row)}" for row in restored.rows if psnr and row.metric == psnr.name}
    box = _centre(restored, scale, PANEL_SIDE) if crop is None else _chosen(restored, scale, *crop)
    titled = {name + values.get(name, ""): image for name, image in _cropped(restored, scale, box).items()}
    kernel = _kernel(restored, dataset_opt)
    if crop is None:
        return side_by_side(titled, kernel)
    whole = next(reversed(restored.sr.values())) if restored.gt is None else restored.gt
    name = image_name(restored.item["lq_path"])
    return side_by_side({name: boxed(whole, *(scale * side for side in box)), **titled}, kernel, kernel_in=1)


def _kernel(restored: Restored, dataset_opt: dict) -> np.ndarray | None:
    """The blur kernel of an item that has one."""
    task = restored.item.get("task")
    if not is_classic(task):
        return None
    return task_kernel(task, dataset_opt["kernel_size"]).numpy()


def save_images(restored: Restored, folder: Path) -> None:
    """Write what every method made of an item: `folder`/data set/method/degradation/image.png."""
    name = Path(restored.item["lq_path"])
    file = f"{_plain_stem(name)}.png"
    for method, image in restored.sr.items():
        path = folder / method / restored.item["kernel"] / name.parent / file
        write_bytes(cv2.imencode(".png", image)[1].tobytes(), path)


def _plain_stem(name: Path) -> str:
    """The name without .png; another suffix stays in it, so that a.jpg and a.png differ."""
    return name.stem if name.suffix.lower() == ".png" else f"{name.stem}_{name.suffix[1:].lower()}"


def _text(metric: Metric, row: Row) -> str:
    return f"{row.value:{metric.format}}{metric.kind.unit}"


def _centre(restored: Restored, scale: int, side: int) -> Box:
    """The central part of at most `side` HR pixels each way."""
    height, width = restored.lq.shape[:2]
    rows, columns = (min(side, scale * length) // scale for length in (height, width))
    return Box((height - rows) // 2, (width - columns) // 2, rows, columns)


def _chosen(restored: Restored, scale: int, left: int, top: int, side: int) -> Box:
    """The part at `left`, `top`, all in HR pixels; moved into the image where it reaches beyond."""
    height, width = restored.lq.shape[:2]
    side = max(1, min(side // scale, height, width))
    return Box(min(top // scale, height - side), min(left // scale, width - side), side, side)


def _cropped(restored: Restored, scale: int, box: Box) -> dict[str, np.ndarray]:
    """This part of LR, every method and, where it is known, ground truth."""
    top, left, height, width = box

    def crop(image: np.ndarray, factor: int) -> np.ndarray:
        return image[factor * top : factor * (top + height), factor * left : factor * (left + width)]

    gt = {} if restored.gt is None else {"GT": restored.gt}
    return {"LR": crop(restored.lq, 1)} | {name: crop(image, scale) for name, image in {**restored.sr, **gt}.items()}


def _viewer(restored: Restored, scale: int, metrics: list[Metric], kernel: np.ndarray | None) -> page.Viewer:
    """All pictures; at first bicubic upsampling against the last method that is no oracle, or LR against bicubic."""
    values, formats = {method: [] for method in restored.sr}, {metric.name: metric.format for metric in metrics}
    for row in restored.rows:
        values[row.method].append(f"{row.metric}\N{NO-BREAK SPACE}{row.value:{formats[row.metric]}}")
    images = _cropped(restored, scale, _centre(restored, scale, VIEWER_SIDE))
    pictures = [
        page.Picture(name, ", ".join(values.get(name, [])), page.picture_uri(image, lossless=name == "LR"))
        for name, image in images.items()
    ]
    methods = [method for method in restored.sr if not is_oracle(method)]
    left = methods[0] if len(methods) > 1 else "LR"
    height, width = images["Bicubic"].shape[:2]
    uri = None
    if kernel is not None:
        uri = page.picture_uri(np.rint(255 * kernel / kernel.max()).astype(np.uint8), lossless=True)
    item = restored.item
    return page.Viewer(item["lq_path"], item["kernel"], width, height, uri, pictures, left, methods[-1])
