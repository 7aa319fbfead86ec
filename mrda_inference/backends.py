"""A student's two halves without torch: onnxruntime and OpenVINO, on the CPU; and whether one is faster."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mrda_arch import MRDANet
from mrda_arch.collapse import MIN_SIDE
from mrda_inference.tiling import Encode, Restore, network_functions
from mrda_utils.errors import UserError
from mrda_utils.files import user_cache, write_text

Run = Callable[..., np.ndarray]
"""Inputs of a graph -> its output."""
PRECISIONS = {"onnx": {torch.float32: "f32"}, "openvino": {torch.float32: "f32", torch.bfloat16: "bf16"}}
"""What each backend computes in, and OpenVINO's names for it."""
CACHE = "backends.json"
MEASURED_SIDE = 128  # pixels, of the image by which backends are compared


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Tell how to install what the block cannot import.

    Raises:
        UserError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f'{error.name} is not installed; pip install ".[{name}]"') from error


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


def automatic_backend(net: MRDANet) -> Literal["torch", "openvino"]:
    """What restores faster on this CPU in float32: OpenVINO where it is installed and was measured so, else torch.

    Each kind of network is measured once, for a second or two, with the present number of threads; the answer is kept
    in the user's cache until a package is updated.
    """
    known = net.hyper_parameters(net.state_dict())
    try:
        versions = [version(package) for package in ("torch", "openvino", "onnx")]
    except PackageNotFoundError:
        return "torch"
    if known["modulation"] != "rdam":
        return "torch"
    key = json.dumps([known, versions, platform.node(), torch.get_num_threads()], sort_keys=True)
    answers: dict[str, str] = {}
    with suppress(OSError, RuntimeError, ValueError, TypeError):  # not there, damaged, or nobody's home
        answers = dict(json.loads((user_cache() / CACHE).read_text(encoding="utf-8")))
    if answers.get(key) not in ("torch", "openvino"):
        answers[key] = min(("torch", "openvino"), key=lambda name: _seconds(net, name))
        with suppress(UserError, RuntimeError):  # then it is measured again
            write_text(json.dumps(answers), user_cache() / CACHE)
    return answers[key]


def _seconds(net: MRDANet, backend: Literal["torch", "openvino"]) -> float:
    """Shortest of three times that a backend takes for one image."""
    functions = network_functions(net) if backend == "torch" else backend_functions(net, backend)
    lq, times = torch.rand(1, 3, MEASURED_SIDE, MEASURED_SIDE, generator=torch.Generator()), []
    for _ in range(4):  # the first one is for warming up
        begin = time.perf_counter()
        functions[1](lq, functions[0](lq))
        times.append(time.perf_counter() - begin)
    return min(times[1:])


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
