"""The upscaler's command line: files, folders, and what becomes of each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from glob import glob
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from mrda_data.images import SUFFIXES, ImageError
from mrda_data.sources import image_names
from mrda_inference.backends import backend_functions
from mrda_inference.image_file import LONGEST_SIDE, check_target, read_picture, write_picture
from mrda_inference.tiling import OVERLAP, network_functions, one_behind, upscale
from mrda_inference.upscaler import (
    DEFAULT_WEIGHTS,
    automatic_tile,
    enlarged,
    fast_dtype,
    find_device,
    student,
    to_tensor,
)
from mrda_utils.errors import UNPRINTABLE, OptionError, UserError, is_out_of_memory, run
from mrda_utils.numerics import set_numerics


def main() -> None:
    """Upscale what the command line names; see `upscale_files`."""
    run(
        lambda: sys.exit(upscale_files()),
        interrupted="interrupted; what is finished is whole, the same command goes on from there",
        out_of_memory="out of memory; choose a smaller --tile",
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mrda-upscale", description="Upscale photographs.")
    parser.add_argument(
        "-i", "--input", nargs="+", required=True, help="files, folders, patterns such as 'photos/*.jpg'"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; or a file, for one input file")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS, help="a student's .safetensors or .pth, or shipped:NAME")
    parser.add_argument("--format", choices=["png", "jpg", "webp"], default="png", help="of the files in the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--backend",
        choices=["torch", "onnx", "openvino"],
        default="torch",
        help="what computes; onnx (onnxruntime) and openvino: on the CPU, installed by pip install '.[openvino]'",
    )
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="auto: the half precision that the GPU is fast in; float32 on the CPU",
    )
    parser.add_argument("--tile", type=int, help="longest side of a tile, LR pixels; by default as memory allows")
    parser.add_argument("--overlap", type=int, default=OVERLAP, help=f"of tiles, LR pixels (default {OVERLAP})")
    args = parser.parse_args(argv)
    if args.overlap < 0:
        raise OptionError(f"--overlap {args.overlap}: must be at least 0")
    if args.tile is not None and args.tile <= args.overlap:
        raise OptionError(f"--tile {args.tile}: must be larger than --overlap, {args.overlap}")
    if args.backend != "torch" and args.device not in ("auto", "cpu"):
        raise OptionError(
            f"--device {args.device}: --backend {args.backend} computes on the CPU; leave one of them out"
        )
    if args.backend == "onnx" and args.dtype not in ("auto", "float32"):
        raise OptionError(f"--dtype {args.dtype}: --backend onnx computes in float32; openvino takes bfloat16 too")
    return args


def upscale_files(argv: list[str] | None = None) -> int:
    """Upscale the files that the command line names; one that fails is told and passed over.

    Returns:
        Exit code: 0, or 1 if a file failed.

    Raises:
        UserError: a mistake in the arguments or weights, before anything is written.
    """
    args = _parse(argv)
    targets = _targets(args.input, args.output, args.format)
    set_numerics()
    device = find_device(args.device if args.backend == "torch" else "cpu", args.dtype)
    net = student(args.weights)
    dtype = fast_dtype(device) if args.dtype == "auto" else getattr(torch, args.dtype)
    if args.backend == "torch":
        functions = network_functions(net, device, dtype)
    else:
        functions = backend_functions(net, args.backend, dtype)
    written: dict[Path, Path] = {}

    def begin(source: Path, target: Path) -> Callable[[], None]:
        """Check and restore a picture; the function that is returned makes a file of it."""
        if UNPRINTABLE.search(str(target.relative_to(args.output))):
            raise ImageError(f"{str(source)!r}: control characters or no UTF-8 in the name; rename it")
        if target in written:
            raise ImageError(f"{source}: {target} is already that of {written[target]}; rename one of them")
        written[target] = source
        if target.exists() and target.samefile(source):
            raise ImageError(f"{source}: its output would replace it; choose another -o")
        if target.exists() and not args.overwrite:
            raise _LeftAlone(f"{target}: exists, left as it is; --overwrite replaces it")
        picture = read_picture(source)
        check_target(target, picture, net.upscale)
        tile = args.tile or automatic_tile(net, picture.colour.shape[:2], device, args.overlap, dtype)
        lq = to_tensor(picture.colour).to(device).expand(1, 3, -1, -1)
        sr = upscale(lq, *functions, net.upscale, tile=tile, overlap=args.overlap, title=source.name)
        return lambda: write_picture(enlarged(picture, sr, net.upscale, source.name), target)

    def begun(writer: ThreadPoolExecutor) -> Iterator[tuple[Path, Future[None]]]:
        """Each file once it is restored, while the writer works on it; what went wrong is told by its future."""
        for source, target in tqdm(targets, "images", disable=None if len(targets) > 1 else True):
            try:
                finish = begin(source, target)
            except (_LeftAlone, UserError, MemoryError, RuntimeError) as error:
                # without its traceback, which would hold the memory of this picture while the next one needs it
                finish = partial(_fail, error.with_traceback(None) if is_out_of_memory(error) else error)
            writing = writer.submit(finish)
            del finish  # the writer lets go of the picture as soon as it is written
            yield source, writing

    done = skipped = failed = 0
    with ThreadPoolExecutor(max_workers=1) as writer:
        # one file behind: the next picture is restored while the last one is encoded and written
        for source, writing in one_behind(begun(writer)):
            try:
                writing.result()
                done += 1
            except _LeftAlone as reason:
                tqdm.write(str(reason), file=sys.stderr)
                skipped += 1
            except UserError as error:
                tqdm.write(f"error: {error}", file=sys.stderr)
                failed += 1
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                tqdm.write(f"error: {source}: out of memory; choose a smaller --tile", file=sys.stderr)
                failed += 1
    print(f"{done} upscaled, {skipped} left as they were, {failed} failed: {args.output}")  # noqa: T201
    return int(failed > 0)


class _LeftAlone(Exception):  # noqa: N818  (no error)
    """An output that is there already."""


def _fail(error: Exception) -> NoReturn:
    raise error


def _targets(patterns: list[str], output: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Every input file with its output file."""
    is_one_file = len(patterns) == 1 and Path(patterns[0]).is_file()
    if is_one_file and output.suffix.lower() in LONGEST_SIDE and not output.is_dir():
        return [(Path(patterns[0]), output)]
    if output.is_file() or (output.suffix.lower() in SUFFIXES and not output.is_dir()):
        raise OptionError(f"-o {output}: name a folder or, for one input file, a file in {' '.join(LONGEST_SIDE)}")
    inside = output.resolve()  # what an earlier run wrote is no input, unless it is all that there is
    found: list[tuple[Path, Path]] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            if inside == path.resolve():
                raise OptionError(f"-o {output}: is the input folder; choose another")
            images = [path / name for name in image_names(path)]
            own = [image for image in images if inside not in image.resolve().parents]
            found += [(image, image.relative_to(path)) for image in own or images]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            matches = [Path(name) for name in sorted(glob(pattern, recursive=True))]
            images = [match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()]
            if not images:
                raise ImageError(f"-i {pattern}: no such file or folder, and no image that it matches")
            own = [match for match in images if inside not in match.resolve().parents]
            found += [(match, Path(match.name)) for match in own or images]
    unique = dict(found)  # a file named twice is upscaled once
    return [(source, output / name.with_name(f"{name.stem}.{suffix}")) for source, name in unique.items()]
