"""Write a student as two ONNX files, for other programs.

    python scripts/export_onnx.py -i student.safetensors -o exported

NAME_encode.onnx computes the degradation representation of an image, once; NAME_restore.onnx restores the image, or
each tile of it, with that.

    lq (1, 3, height, width) float32 RGB in [0, 1]  ->  idr
    lq, idr  ->  sr (1, 3, scale height, scale width), not clipped
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import argparse

from mrda_inference.backends import extra
from mrda_inference.upscaler import student
from mrda_utils.arguments import HelpFormatter
from mrda_utils.errors import UserError, run
from mrda_utils.files import written_whole
from mrda_utils.shipped import PREFIX


def export(weights: str, folder: Path) -> list[Path]:
    """Write both halves; return the files.

    Args:
        weights: file of a student, or `shipped:<name>`.
        folder: is made where it is missing.

    Raises:
        UserError: no such weights, no student's, onnx is not installed, or the file system refused.
    """
    net = student(weights)
    with extra("onnx"):
        from mrda_inference.onnx_graphs import onnx_graphs
    name, files = Path(weights.removeprefix(PREFIX)).stem, []
    for half, graph in zip(("encode", "restore"), onnx_graphs(net), strict=True):
        files.append(folder / f"{name}_{half}.onnx")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with written_whole(files[-1]) as file:
                file.write(graph.SerializeToString())
        except OSError as error:
            raise UserError(f"{files[-1]}: cannot be written ({error.strerror or error})") from error
    return files


def main(argv: list[str] | None = None) -> None:
    """Export the weights that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("-i", "--input", required=True, help="a student's .safetensors or .pth, or shipped:NAME")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    args = parser.parse_args(argv)
    for file in export(args.input, args.output):
        print(file)  # noqa: T201


if __name__ == "__main__":
    run(main)
