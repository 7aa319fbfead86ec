"""A page to try the network on a photograph: before and after, the nearest known kernels, the modulation map.

mrda-web [--weights student.safetensors] [--port 7860]
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from mrda_arch import MRDANet
from mrda_arch.rdan_arch import modulation_maps
from mrda_data.images import SUFFIXES
from mrda_eval.page import picture_uri
from mrda_inference.image_file import read_picture
from mrda_inference.known_kernels import Neighbour, known_kernels, nearest
from mrda_inference.tiling import OVERLAP, centre, idr_region, network_functions, upscale
from mrda_inference.upscaler import DEFAULT_WEIGHTS, automatic_tile, find_device, student, to_pixels, to_tensor
from mrda_utils.errors import OptionError, UserError, is_out_of_memory, run
from mrda_utils.numerics import set_numerics
from mrda_utils.resize import imresize

MOST_PIXELS = 2**19  # that are worked on: seconds to a minute on two cores
LONGEST = 4095  # side of what is worked on; four times as much fits into WebP
MOST_BYTES = 2**25  # of its file
WAITING = 8  # photographs, of which one at a time is worked on
MAP_SHARE = 0.65  # of the colours in the heat map; the rest is the photograph
SECURITY_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # nothing from other servers
FONTS = ["system-ui", "sans-serif"]
STYLE = """
.kernels { display: grid; grid-template-columns: repeat(3, 1fr); gap: .8rem; padding-top: 1.6rem; }
.kernels figure { margin: 0; text-align: center; }
.kernels img { width: 100%%; image-rendering: pixelated; border-radius: 4px; }
.kernels figcaption { padding-top: .3rem; line-height: 1.35; }
.kernels small, .legend p { opacity: .75; }
.legend { display: grid; grid-template-columns: auto 1fr auto; gap: .2rem .6rem; align-items: center; }
.legend span { height: .7rem; border-radius: 4px; background: linear-gradient(to right, %s); }
.legend p { grid-column: 1 / -1; margin: 0; }
"""
INTRODUCTION = """
# MRDA: blind super-resolution
Drop a photograph. The network reads off it how it was degraded, the implicit degradation representation (IDR), and
enlarges it accordingly, {scale} times. Of more than {pixels:,d} pixels the central part is taken; nothing leaves the
machine that serves this page.
"""


class Examined(NamedTuple):
    """What the page shows of one photograph, or of its central part if it is large."""

    before: np.ndarray
    """Bicubic upsampling, (scale h, scale w, 3) uint8 RGB."""
    after: np.ndarray
    """The network's, as `before`."""
    neighbours: list[Neighbour]
    modulation: np.ndarray
    """(h, w) in [0, 1]: mean over all RDA convs of their map M."""
    sides: tuple[int, int]
    """Height and width of the whole photograph."""


# ------------------------------------------------------------------------------------------------------------ the work
def examiner(net: MRDANet, device: torch.device) -> Callable[[Path], Examined]:
    """What examines image files with one student; known kernels are represented once, here.

    The function that it returns raises ImageError for a file that cannot be read.

    Raises:
        UserError: the network's modulation is not `rdam`.
    """
    modulation = net.hyper_parameters(net.state_dict())["modulation"]
    if modulation != "rdam":
        raise UserError(f"modulation: {modulation}; the page shows the maps of rdam, take mrda-upscale --backend torch")
    encode, restore = network_functions(net, device)
    rdan, known = net.rdan.to(device), known_kernels(encode, net.upscale)

    def mean_map(lq: Tensor, idr: Tensor) -> Tensor:
        return modulation_maps(rdan, lq.to(device), idr).mean(0).expand(1, 3, -1, -1).cpu()

    def examine(path: Path) -> Examined:
        whole = read_picture(path).colour
        sides = whole.shape[:2]
        lq = to_tensor(whole[centre(*sides, MOST_PIXELS, LONGEST)]).expand(1, 3, -1, -1)
        idr = encode(idr_region(lq))
        tile = automatic_tile(net, lq.shape[-2:], device, OVERLAP)
        sr = upscale(lq, lambda _: idr, restore, net.upscale, tile=tile)
        modulation = upscale(lq, lambda _: idr, mean_map, 1, tile=tile)
        before, after = (to_pixels(image, np.dtype(np.uint8)) for image in (imresize(lq, net.upscale), sr))
        return Examined(before, after, nearest(known, idr), modulation[0, 0].numpy(), sides)

    return examine


def heat_map(photograph: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay values over a photograph, from dark violet (the smallest) to yellow (the largest).

    Args:
        photograph: (H, W, 3) uint8 RGB.
        values: (h, w), of any range; upsampled to (H, W).

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = photograph.shape[:2]
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    large = cv2.resize(np.rint(255 * share).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    gray = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)[..., None]
    return np.rint(MAP_SHARE * colours + (1 - MAP_SHARE) * gray).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ the page
def import_gradio() -> ModuleType:
    """Gradio, told to send no statistics.

    Raises:
        UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError("gradio is not installed; pip install '.[web]'") from error
    return gradio


class OwnServerOnly:
    """ASGI middleware: has browsers load nothing from any other server."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass everything on, with one more header."""

        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", SECURITY_POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


def kernels_html(neighbours: list[Neighbour]) -> str:
    """Picture, name and angle of each kernel."""
    figures = []
    for (name, kernel, _), angle in neighbours:
        uri = picture_uri(np.rint(255 * kernel / kernel.max()).astype(np.uint8), lossless=True)
        caption = f"{name}<br><small>{angle:.2f}° away</small>"
        figures.append(f'<figure><img src="{uri}" alt="kernel, {name}"><figcaption>{caption}</figcaption></figure>')
    return f'<div class="kernels">{"".join(figures)}</div>'


def legend_html(values: np.ndarray) -> str:
    """Smallest and largest value at the ends of the colour map."""
    note = "How much the degradation-dependent convolutions add in each region: their maps M, averaged."
    return f'<div class="legend">{values.min():.2f}<span></span>{values.max():.2f}<p>{note}</p></div>'


def part_note(part: tuple[int, int], whole: tuple[int, int]) -> str:
    """What is missing, if anything is; of both height and width."""
    if part == whole:
        return ""
    sizes = (f"{width}x{height}" for height, width in (part, whole))
    return "Only the central {} of {} pixels were taken; mrda-upscale takes whole photographs.".format(*sizes)


def build_page(gradio: ModuleType, examine: Callable[[Path], Examined], scale: int) -> Any:
    """The page as gradio Blocks, not yet served."""

    def show(path: str | None) -> tuple:
        nothing = "", None, "", None, ""
        if path is None:
            return nothing
        try:
            found = examine(Path(path))
        except (UserError, MemoryError, RuntimeError) as error:
            if isinstance(error, UserError):
                message = str(error).replace(path, Path(path).name)  # where uploads are kept is nobody's business
            elif is_out_of_memory(error):
                message = "out of memory; take a smaller photograph"
            else:
                raise
            gradio.Warning(escape(message), duration=None)
            return nothing
        heat = heat_map(found.before, found.modulation)
        pictures = (found.before, found.after)
        note = part_note(found.modulation.shape, found.sides)
        return note, pictures, kernels_html(found.neighbours), heat, legend_html(found.modulation)

    with gradio.Blocks(title="MRDA", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gradio.Markdown(INTRODUCTION.format(scale=scale, pixels=MOST_PIXELS))
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                photograph = gradio.File(label="Photograph", file_types=list(SUFFIXES), height=150)
                note = gradio.Markdown(elem_id="part")
                kernels = gradio.HTML(
                    label="Nearest known kernels, by the IDR", show_label=True, container=True, elem_id="kernels"
                )
                heat = gradio.Image(
                    label="Region map (RDAM)",
                    format="webp",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="modulation",
                )
                legend = gradio.HTML(elem_id="legend")
            with gradio.Column(scale=5, min_width=320):
                slider = gradio.ImageSlider(
                    label="Left: bicubic, right: MRDA",
                    format="png",
                    interactive=False,
                    max_height=800,
                    elem_id="before-after",
                )
        outputs = [note, slider, kernels, heat, legend]
        photograph.change(show, photograph, outputs, concurrency_limit=1, show_progress_on=slider)
    return page.queue(max_size=WAITING)


def viridis() -> str:
    """Colours of the heat map for CSS."""
    steps = cv2.applyColorMap(np.linspace(0, 255, 9).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return ", ".join(f"rgb({r}, {g}, {b})" for r, g, b in steps)


def serve(argv: list[str] | None = None) -> None:
    """Serve the page that the command line describes until it is interrupted.

    Raises:
        UserError: a mistake in the arguments or weights; gradio is missing; the port is taken.
    """
    parser = argparse.ArgumentParser(prog="mrda-web", description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS, help="a student's .safetensors or .pth, or shipped:NAME")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; by default this machine alone can")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    args = parser.parse_args(argv)
    gradio = import_gradio()
    from starlette.middleware import Middleware  # comes with gradio

    set_numerics()
    net = student(args.weights)
    examine = examiner(net, find_device(args.device))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that uploads are removed
    with tempfile.TemporaryDirectory(prefix="mrda-web-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            page = build_page(gradio, examine, net.upscale)
            _, url, _ = page.launch(
                server_name=args.host,
                server_port=args.port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                max_file_size=MOST_BYTES,
                footer_links=[],
                theme=gradio.themes.Default(font=FONTS, font_mono=["monospace"]),
                css=STYLE % viridis(),
                app_kwargs={"middleware": [Middleware(OwnServerOnly)]},
            )
        except OSError as error:
            port = "" if args.port is None else f" --port {args.port}"
            raise OptionError(f"--host {args.host}{port}: cannot be listened on; choose another") from error
        print(f"{url}  (Ctrl-C ends it)", flush=True)  # noqa: T201
        page.block_thread()


def main() -> None:
    """Serve the page; see `serve`."""
    run(serve, interrupted="stopped", out_of_memory="out of memory")


if __name__ == "__main__":
    main()
