"""Write a student for other programs: one ONNX file, image in, image out.

    python scripts/export_onnx.py -i student.safetensors -o student.onnx

    input (batch, 3, height, width) float32 RGB in [0, 1]  ->  output (batch, 3, scale height, scale width), not clipped

--halves writes two files for programs that cut images into tiles themselves: NAME_encode.onnx computes the degradation
representation of an image, once (lq -> idr), NAME_restore.onnx restores each tile with it (lq, idr -> sr).
--ncnn writes NAME.param and NAME.bin for programs that are built on ncnn.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

from typing import Literal

import torch

from mrda_arch import MRDANet
from mrda_arch.network_file import about
from mrda_inference.backends import extra
from mrda_inference.upscaler import student
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run
from mrda_utils.files import write_bytes
from mrda_utils.shipped import PREFIX

Kind = Literal["whole", "fp16", "halves", "ncnn"]
SUFFIXES = {"whole": ".onnx", "fp16": ".onnx", "halves": "", "ncnn": ".param"}


def export(weights: str, output: Path, kind: Kind = "whole") -> list[Path]:
    """Write the files of one kind; return them.

    Args:
        weights: file of a student, or `shipped:<name>`.
        output: folder, made where it is missing, or for one network a file that ends as its kind does.
        kind: `fp16` is `whole` with convolutions in half precision.

    Raises:
        UserError: no such weights, no student's, a package is missing, or the file system refused.
    """
    if output.suffix in (".onnx", ".param", ".bin") and output.suffix != SUFFIXES[kind]:
        raise OptionError(f"-o {output}: name a folder{SUFFIXES[kind] and f' or a file in {SUFFIXES[kind]}'}")
    net, title = student(weights), Path(weights.removeprefix(PREFIX)).stem
    is_file = bool(SUFFIXES[kind]) and output.suffix == SUFFIXES[kind]
    stem = output.with_suffix("") if is_file else output / (f"{title}_fp16" if kind == "fp16" else title)
    written = []
    for ending, content in _contents(net, title, kind).items():
        written.append(stem.with_name(stem.name + ending))
        write_bytes(content, written[-1])
    return written


def _contents(net: MRDANet, title: str, kind: Kind) -> dict[str, bytes]:
    """Content of each file, by the suffix that its name adds to that of the network."""
    with extra("ncnn" if kind == "ncnn" else "onnx"):
        from mrda_inference.onnx_graphs import onnx_halves, onnx_whole

        if kind == "ncnn":
            from mrda_inference.ncnn_files import ncnn_files

            param, weights = ncnn_files(net)
            return {".param": param, ".bin": weights}
    if kind == "halves":
        models = dict(zip(("_encode.onnx", "_restore.onnx"), onnx_halves(net), strict=True))
    else:
        models = {".onnx": onnx_whole(net, torch.float16 if kind == "fp16" else torch.float32)}
    for model in models.values():
        known = about(net, title)
        known |= {key: known[f"modelspec.{key}"] for key in ("license", "author")} | {"scale": str(net.upscale)}
        for key, value in known.items():
            model.metadata_props.add(key=key, value=value)
    return {ending: model.SerializeToString() for ending, model in models.items()}


def main(argv: list[str] | None = None) -> None:
    """Export the weights that the command line names."""
    parser = argument_parser(__doc__)
    parser.add_argument("-i", "--input", required=True, help="a student's .safetensors or .pth, or shipped:NAME")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file or folder to write")
    kinds = parser.add_mutually_exclusive_group()
    for name, text in {
        "fp16": "convolutions in half precision: half the size",
        "halves": "two files, representation and restoration",
        "ncnn": 'for ncnn; pip install ".[ncnn]" brings the converter, pnnx',
    }.items():
        kinds.add_argument(f"--{name}", dest="kind", action="store_const", const=name, help=text)
    args = parser.parse_args(argv)
    for file in export(args.input, args.output, args.kind or "whole"):
        print(f"{file} is written")  # noqa: T201


if __name__ == "__main__":
    run(main)
