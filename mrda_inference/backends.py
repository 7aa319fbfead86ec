"""A student's two halves without torch: onnxruntime and OpenVINO, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mrda_arch import MRDANet
from mrda_arch.collapse import MIN_SIDE
from mrda_inference.tiling import Encode, Restore
from mrda_utils.errors import UserError

Run = Callable[..., np.ndarray]
"""Inputs of a graph -> its output."""
PRECISIONS = {"onnx": {torch.float32: "f32"}, "openvino": {torch.float32: "f32", torch.bfloat16: "bf16"}}
"""What each backend computes in, and OpenVINO's names for it."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Tell how to install what the block cannot import.

    Raises:
        UserError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; pip install '.[{name}]'") from error


def backend_functions(
    net: MRDANet, backend: Literal["onnx", "openvino"], dtype: torch.dtype = torch.float32
) -> tuple[Encode, Restore]:
    """The two halves of a student, as `upscale` takes them; with as many threads as torch.

    Args:
        net: a student for RGB images; left as it is.
        backend: `onnx` is onnxruntime.
        dtype: float32; `openvino` takes bfloat16 too, where the CPU has it; the bicubic base stays in float32.

    Raises:
        UserError: the backend is not installed, or the network's modulation is not `rdam`.
        ValueError: it does not compute in `dtype`.
    """
    if dtype not in PRECISIONS[backend]:
        raise ValueError(f"dtype: {dtype}, {backend} computes in {', '.join(map(str, PRECISIONS[backend]))}")
    load = {"onnx": _onnxruntime, "openvino": _openvino}[backend]
    with extra(backend):
        from mrda_inference.onnx_graphs import onnx_halves

        models = (graph.SerializeToString() for graph in onnx_halves(net))
        run_encode, run_restore = (load(model, PRECISIONS[backend][dtype]) for model in models)
    smallest = MIN_SIDE if len(net.rdan.upscaler) > 2 else 1  # of what `collapse_upscaler` makes

    def encode(lq: Tensor) -> Tensor:
        return torch.from_numpy(run_encode(lq.contiguous().numpy()))

    def restore(lq: Tensor, idr: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        if min(height, width) < smallest:
            raise UserError(f"an image or tile of {width}x{height} pixels; below {smallest} take --backend torch")
        return torch.from_numpy(run_restore(lq.contiguous().numpy(), idr.numpy()))

    return encode, restore


def _onnxruntime(model: bytes, _: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]


def _openvino(model: bytes, precision: str) -> Run:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # by default it would be bfloat16 wherever the CPU has that
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    return lambda *inputs: compiled(inputs, share_outputs=False)[0]  # shared ones would be overwritten by the next
