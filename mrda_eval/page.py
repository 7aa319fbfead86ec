"""index.html of a report: tables and before-and-after pictures in one file that needs nothing else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined

from mrda_eval.tables import Table
from mrda_utils.files import write_text

TEMPLATE = Path(__file__).with_name("index.html.j2")


class Picture(NamedTuple):
    """One method's picture in the page."""

    name: str
    values: str
    """Its metrics, in words."""
    uri: str


class Viewer(NamedTuple):
    """One image under one kernel: any two of its pictures with a slider between them."""

    image: str
    kernel: str
    width: int
    height: int
    kernel_uri: str | None
    pictures: list[Picture]
    left: str
    """Name of the picture that is shown on the left at first."""
    right: str


class Section(NamedTuple):
    """One data set."""

    name: str
    tables: list[Table]
    kernels: list[Table]
    """A row a kernel."""
    viewers: list[Viewer]


def picture_uri(image: np.ndarray, lossless: bool = False) -> str:
    """WebP as a data URI.

    Args:
        image: (H, W, 3) or (H, W) uint8, BGR.
        lossless: not at quality 90, which is what photographs get.
    """
    _, data = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101 if lossless else 90])
    return "data:image/webp;base64," + base64.b64encode(data).decode()


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else format(value, form)


def write_page(title: str, subtitle: str, sections: list[Section], costs: Table, notes: list[str], path: Path) -> None:
    """Write the page, whole or not at all; names and notes are escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_text(page.render(title=title, subtitle=subtitle, sections=sections, costs=costs, notes=notes), path)
