"""A student in the format of ncnn, through pnnx, its converter."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import onnx
import pnnx

from mrda_arch import MRDANet
from mrda_inference.onnx_graphs import onnx_plain
from mrda_utils.errors import UserError

NAMES = {"in0": "data", "out0": "output"}  # pnnx's, and those that realesrgan-ncnn-vulkan asks for


def ncnn_files(net: MRDANet) -> tuple[bytes, bytes]:
    """A student for RGB images of any size from 2 pixels a side on.

    Args:
        net: left as it is.

    Returns:
        Contents of the .param and of the .bin file: blob `data` (3, height, width) in [0, 1] -> blob `output`
        (3, upscale height, upscale width), not clipped.

    Raises:
        UserError: the network's modulation is not `rdam`, or pnnx failed.
    """
    model = onnx_plain(net)
    with tempfile.TemporaryDirectory(prefix="mrda-ncnn-") as folder:
        onnx.save(model, Path(folder) / "net.onnx")
        # two sizes, so that it takes neither for a constant
        sizes = ["inputshape=[1,3,32,48]", "inputshape2=[1,3,40,64]", "fp16=0"]
        done = subprocess.run([pnnx.EXEC_PATH, "net.onnx", *sizes], cwd=folder, capture_output=True, text=True)
        param, weights = (Path(folder) / f"net.ncnn.{suffix}" for suffix in ("param", "bin"))
        if done.returncode or not (param.is_file() and weights.is_file()):
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise UserError(f"pnnx could not convert the network ({reason})")
        return _renamed(param.read_text()).encode(), weights.read_bytes()


def _renamed(param: str) -> str:
    """The same graph, its input and output called as programs call them."""
    lines = [" ".join(NAMES.get(word, word) for word in line.split(" ")) for line in param.splitlines()]
    return "\n".join(lines) + "\n"
