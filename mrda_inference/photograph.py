"""One photograph from file to file, for the command line and the page."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from mrda_data.images import ImageError
from mrda_inference.canvas import new_canvas, resize_into
from mrda_inference.image_file import Picture, read_picture
from mrda_inference.image_writer import check_target, write_pixels
from mrda_inference.side_data import SideData, enlarged_side_data
from mrda_inference.tiling import IDR_PIXELS, centre, finished_blocks, tile_grid
from mrda_inference.upscaler import Upscaler, automatic_tile, bytes_a_pixel, to_tensor
from mrda_utils.errors import OptionError, UserError
from mrda_utils.files import refusal_named
from mrda_utils.memory import available_memory


class Cancelled(Exception):  # noqa: N818  (no error)
    """The caller no longer wants the picture; raised by its `progress`."""


class TooLargeError(UserError):
    """A picture that does not fit the memory."""


@dataclass(frozen=True)
class OutputOptions:
    """What becomes of the network's result; the format is that of the output file's name.

    Raises:
        OptionError: a value out of range, or two that exclude each other.
    """

    quality: int | None = None
    """Of .jpg (None: 95) and .webp (None: lossless), 1 to 100."""
    outscale: float | None = None
    """Output size over input size; None: the network's."""
    width: int | None = None
    """Of the output, pixels; without `height` the shape is kept."""
    height: int | None = None
    """Of the output, pixels; without `width` the shape is kept."""
    background: tuple[int, int, int] | None = None
    """RGB, 0 to 255, that shows through where the picture is transparent; None: alpha is kept."""
    strip: bool = False
    """Leave out EXIF, XMP and resolution; the colour profile, which the pixels need, stays."""

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise OptionError(f"--quality {self.quality}: must be 1 to 100")
        if self.outscale is not None and not 0 < self.outscale <= 64:
            raise OptionError(f"--outscale {self.outscale}: must be above 0 and at most 64")
        if self.outscale is not None and (self.width or self.height):
            raise OptionError("--outscale excludes --width and --height; leave one out")
        for name, side in (("width", self.width), ("height", self.height)):
            if side is not None and not 1 <= side <= 1_000_000:
                raise OptionError(f"--{name} {side}: must be 1 to 1000000")

    def size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Height and width of the output for an input of these sides and a network of this scale."""
        if self.width and self.height:
            return self.height, self.width
        factor = self.outscale or scale
        if self.width:
            factor = self.width / width
        if self.height:
            factor = self.height / height
        return self.height or max(1, round(factor * height)), self.width or max(1, round(factor * width))


class Enlarged(NamedTuple):
    """A restored photograph that is yet to be written."""

    pixels: np.ndarray
    """(H, W, 1) gray, (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16."""
    side: SideData
    notes: tuple[str, ...]
    """A line about each thing that could not be kept."""
    target: Path
    quality: int | None

    def write(self) -> list[str]:
        """Write the file; it holds all of the picture, or what it held before.

        Returns:
            A line about each thing that could not be kept.

        Raises:
            ImageError: it cannot be encoded.
            WriteError: the file system refuses.
        """
        return [*self.notes, *write_pixels(self.pixels, self.side, self.target, self.quality)]


def restore_file(
    source: Path,
    target: Path,
    upscaler: Upscaler,
    output: OutputOptions = OutputOptions(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Enlarged:
    """Upscale one image file; `write()` of what is returned, which can go on beside the next photograph, ends it.

    Args:
        source: an image file.
        target: its suffix tells the format, .png, .jpg, .jpeg or .webp. It is not touched yet.
        upscaler: what restores.
        output: what becomes of the result.
        progress: called with the numbers of tiles that are done and that there are, before and after each; what it
            raises, for example `Cancelled`, ends the work.

    Raises:
        ImageError: the file cannot be used, or not be written in this format.
        TooLargeError: it takes more memory than there is; known before the network runs.
        WriteError: the file system refuses.
    """
    picture = with_visible_colours(read_picture(source), output.background)
    sides, dtype = picture.colour.shape[:2], picture.colour.dtype
    size = output.size(*sides, upscaler.net.upscale)
    check_target(target, size, dtype, picture.alpha is not None)
    tile = upscaler.tile or automatic_tile(upscaler.net, sides, upscaler.device, upscaler.overlap, upscaler.dtype)
    _check_folder(target)
    _check_memory(source, upscaler, sides, tile, target, size)
    channels = 4 if picture.alpha is not None else picture.colour.shape[2]
    pixels = new_canvas((*size, channels), dtype, target.parent)
    full = tuple(upscaler.net.upscale * side for side in sides)
    restored = pixels if full == size else new_canvas((*full, picture.colour.shape[2]), dtype, target.parent)
    _restore(picture.colour, restored, upscaler, tile, source.name, progress)
    if restored is not pixels:
        colours = pixels[..., :3] if restored.shape[2] == 3 else pixels[..., :1]
        resize_into(colours, restored, Image.Resampling.LANCZOS)
    if picture.alpha is not None:
        if picture.colour.shape[2] == 1:
            pixels[..., 1] = pixels[..., 2] = pixels[..., 0]  # no encoder has gray with alpha
        resize_into(pixels[..., 3:], picture.alpha, Image.Resampling.BICUBIC)
    side = SideData(picture.side.profile, png=picture.side.png) if output.strip else picture.side
    return Enlarged(pixels, enlarged_side_data(side, pixels), picture.notes, target, output.quality)


def with_visible_colours(picture: Picture, background: tuple[int, int, int] | None = None) -> Picture:
    """The picture as its colours show: no alpha where all is opaque; hidden colours are those of the nearest visible.

    Args:
        picture: as it was read.
        background: RGB, 0 to 255, to lay a transparent picture on; None: its alpha stays.
    """
    if picture.alpha is None:
        return picture
    highest = np.iinfo(picture.alpha.dtype).max
    if picture.alpha.min() == highest:
        return picture._replace(alpha=None)
    if background is not None:
        colour, ground = picture.colour, np.array(background, np.float32) * (highest / 255)
        if colour.shape[2] == 1 and len(set(background)) > 1:
            colour = colour.repeat(3, axis=2)
        share = picture.alpha.astype(np.float32) / highest
        laid = np.rint(colour * share + ground[: colour.shape[2]] * (1 - share))
        return picture._replace(colour=laid.astype(colour.dtype), alpha=None)
    hidden = picture.alpha[..., 0] == 0
    if not hidden.any() or hidden.all():
        return picture
    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return picture._replace(colour=picture.colour[rows, columns])


def _check_folder(target: Path) -> None:
    """Make the folder of the output; refuse one that takes no file, before the network runs."""
    with refusal_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass


def _check_memory(
    source: Path, upscaler: Upscaler, sides: tuple[int, int], tile: int | None, target: Path, size: tuple[int, int]
) -> None:
    """Refuse what cannot fit beside a canvas, before the network runs."""
    available = available_memory()
    if available is None or upscaler.device.type != "cpu":
        return
    needed = bytes_a_pixel(upscaler.net) * min(math.prod(sides), (tile or max(sides)) ** 2)
    advice = "choose a smaller --tile"
    if target.suffix.lower() == ".webp":
        needed, advice = max(needed, 16 * math.prod(size)), "choose png"
    if needed > available:
        raise TooLargeError(
            f"{source}: takes {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are free; {advice}"
        )


def _restore(
    colour: np.ndarray,
    restored: np.ndarray,
    upscaler: Upscaler,
    tile: int | None,
    title: str,
    progress: Callable[[int, int], None],
) -> None:
    """Fill `restored`, gray or BGR and perhaps alpha, with what the network makes of `colour`, gray or RGB."""
    sides, scale = colour.shape[:2], upscaler.net.upscale
    rows, columns = tile_grid(sides, tile, upscaler.overlap)
    done, count, highest = 0, len(rows) * len(columns), np.iinfo(colour.dtype).max

    def read(rows: slice, columns: slice) -> Tensor:
        progress(done, count)
        return to_tensor(colour[rows, columns]).to(upscaler.device).expand(1, 3, -1, -1)

    idr = upscaler.encode(read(*centre(*sides, IDR_PIXELS)))
    blocks = finished_blocks(read, sides, idr, upscaler.restore, scale, tile, upscaler.overlap)
    for done, (rows, columns, block) in enumerate(blocks, 1):
        if not torch.isfinite(block).all():
            raise ImageError(f"{title}: the output is not finite; take --dtype float32")
        if colour.shape[2] == 1:
            block = block.mean(1, keepdim=True)
        pixels = (block[0].flip(0).clamp(0, 1) * highest).round_().permute(1, 2, 0).numpy()
        restored[rows, columns, : pixels.shape[2]] = pixels
        progress(done, count)
