"""What the page has the networks do: whole photographs as mrda-upscale does, previews, and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrda_arch.rdan_arch import modulation_maps
from mrda_data.degradation import Task
from mrda_inference.chosen_idr import parse, with_degradation
from mrda_inference.found import Finder, words
from mrda_inference.image_file import Picture, read_picture
from mrda_inference.known_degradations import Known, Neighbour, known_degradations, nearest
from mrda_inference.photograph import OutputOptions, restore_file, with_visible_colours
from mrda_inference.tiling import IDR_PIXELS, OVERLAP, centre
from mrda_inference.upscaler import Upscaler, to_pixels, to_tensor
from mrda_inference.web.jobs import Job
from mrda_inference.web.query import number, rgb
from mrda_inference.web.views import heat_map, png_uri
from mrda_utils.resize import imresize

PREVIEW_SIDE = 192  # pixels of the photograph


class Region(NamedTuple):
    """Part of a photograph, pixels."""

    left: int
    top: int
    width: int
    height: int


class Preview(NamedTuple):
    """What the network makes of a region, and what it found in the whole photograph."""

    region: Region
    before: np.ndarray
    """Bicubic upsampling, (scale h, scale w, 3) uint8 RGB."""
    after: np.ndarray
    """The network's, as `before`."""
    found: str
    """In words; empty where nothing is told."""
    neighbours: list[Neighbour]
    modulation: np.ndarray | None
    """(h, w) in [0, 1]: mean over all RDA convs of their map M; None for a network without."""

    def about(self) -> dict[str, Any]:
        """What the page is told: words, and the expert's view with its pictures."""
        known: dict[str, Any] = {"found": self.found, "region": self.region}
        known["kernels"] = [
            {
                "name": near.known.name,
                "angle": round(near.angle, 2),
                "picture": png_uri(np.rint(255 * near.known.kernel / near.known.kernel.max()).astype(np.uint8)),
            }
            for near in self.neighbours
        ]
        if self.modulation is not None:
            low, high = float(self.modulation.min()), float(self.modulation.max())
            heat = heat_map(self.before, self.modulation)
            known["map"] = {"picture": png_uri(heat), "low": round(low, 3), "high": round(high, 3)}
        return known


class Whole(NamedTuple):
    """A photograph that is done."""

    file: Path
    sides: tuple[int, int]
    """Height and width, pixels."""
    notes: list[str]


class Model:
    """A student that visitors can choose.

    Args:
        name: what it is called on the page.
        upscaler: does the work.
        purpose: what it is for, for visitors.
        kinds: of degradation that it was trained on, those of `known_degradations.KEYS`: these are told. The expert's
            nearest kernels are those of a network that was trained on blur alone.
    """

    def __init__(self, name: str, upscaler: Upscaler, purpose: str = "", kinds: Sequence[str] = ("blur",)) -> None:
        self.name, self.upscaler, self.scale = name, upscaler, upscaler.net.upscale
        self.purpose, self.kinds = purpose, kinds
        hyper_parameters = upscaler.net.hyper_parameters(upscaler.net.state_dict())
        self._has_maps = hyper_parameters["modulation"] == "rdam"

    @cached_property
    def known(self) -> list[Known]:
        """Degradations that it can name; takes some seconds, once."""
        return known_degradations(self.upscaler.encode, self.scale, self.kinds)

    @cached_property
    def finder(self) -> Finder:
        """Tells what is in a photograph."""
        return Finder(self.known)

    def whole(
        self, job: Job, target: Path, output: OutputOptions, task: Task | None = None
    ) -> tuple[Whole, np.ndarray]:
        """Upscale the job's photograph to a file as mrda-upscale does; the pixels, too."""
        enlarged = restore_file(job.photo.source, target, self._upscaler(task), output, job.progress)
        notes = [job.photo.in_own_words(note) for note in enlarged.write()]
        return Whole(target, enlarged.pixels.shape[:2], notes), enlarged.pixels

    @torch.inference_mode()
    def preview(self, picture: Picture, column: float, row: float, task: Task | None = None) -> Preview:
        """Upscale a square around a place, given as shares of width and height, as the whole photograph would be.

        With a task, as one under that degradation; what is found in it is told all the same.
        What is around the square counts as it does there: as much of it is restored, too, as tiles overlap.
        """
        colour = picture.colour
        region = _region_around(colour.shape[:2], column, row)
        middle = self._tensor(colour[centre(*colour.shape[:2], IDR_PIXELS)])
        own = self.upscaler.encode(middle)
        idr = own if task is None else self._upscaler(task).encode(middle)
        top, left = max(region.top - OVERLAP, 0), max(region.left - OVERLAP, 0)
        around = colour[top : region.top + region.height + OVERLAP, left : region.left + region.width + OVERLAP]
        lq = self._tensor(around)
        inside = Region(region.left - left, region.top - top, region.width, region.height)
        sr = self.upscaler.restore(lq, idr).cpu()
        before, after = (
            to_pixels(_part(image, inside, self.scale), np.dtype(np.uint8))
            for image in (imresize(lq.cpu(), self.scale), sr)
        )
        maps = None
        if self._has_maps:
            rdan = self.upscaler.net.rdan.to(self.upscaler.device)
            maps = modulation_maps(rdan, lq, idr).mean(0, keepdim=True)[None]
            maps = _part(maps, inside, 1)[0, 0].float().cpu().numpy()
        found = words(self.finder.find(own)) if self.kinds else ""
        neighbours = nearest(self.known, own.float()) if self.kinds == ("blur",) else []
        return Preview(region, before, after, found, neighbours, maps)

    def _upscaler(self, task: Task | None) -> Upscaler:
        return self.upscaler if task is None else with_degradation(self.upscaler, task)

    def _tensor(self, colour: np.ndarray) -> Tensor:
        return to_tensor(colour).to(self.upscaler.device).expand(1, 3, -1, -1)


def open_picture(path: Path) -> Picture:
    """An image file as its colours show."""
    return with_visible_colours(read_picture(path))


def output_options(query: Mapping[str, str]) -> OutputOptions:
    """Those of mrda-upscale, by their names; what is empty is left out.

    Raises:
        OptionError: a value that cannot be.
    """
    numbers = {key: number(query, key, int) for key in ("quality", "width", "height")}
    outscale, background = number(query, "outscale", float), rgb(query, "background")
    return OutputOptions(**numbers, outscale=outscale, background=background, strip=query.get("strip") == "1")


def chosen_degradation(query: Mapping[str, str]) -> Task | None:
    """That of mrda-upscale's --as; None: as found.

    Raises:
        OptionError: no such degradation.
    """
    return parse(query["as"]) if query.get("as") else None


def result_name(name: str, output: OutputOptions, scale: int, suffix: str) -> str:
    """Of the file that a photograph becomes: IMG_0412_x4.png."""
    if output.width or output.height:
        size = "x".join(str(side) for side in (output.width, output.height) if side)
    else:
        size = f"x{output.outscale or scale:g}"
    return f"{Path(name).stem}_{size}.{suffix}"


def _region_around(sides: tuple[int, int], column: float, row: float) -> Region:
    height, width = (min(side, PREVIEW_SIDE) for side in sides)
    left = min(max(round(column * sides[1] - width / 2), 0), sides[1] - width)
    top = min(max(round(row * sides[0] - height / 2), 0), sides[0] - height)
    return Region(left, top, width, height)


def _part(image: Tensor, region: Region, scale: int) -> Tensor:
    left, top, width, height = (scale * number for number in region)
    return image[..., top : top + height, left : left + width]
