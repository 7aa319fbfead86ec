"""A student ready to restore photographs: weights, device, memory, and a picture's way into the network and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrda_arch import MRDANet, network_from_file
from mrda_inference.backends import automatic_backend, backend_functions
from mrda_inference.tiling import OVERLAP, Encode, Restore, network_functions
from mrda_utils import numerics
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import OptionError
from mrda_utils.memory import available_memory
from mrda_utils.shipped import PREFIX, shipped_weights


class Model(NamedTuple):
    """A shipped network, by the name that users choose it by."""

    weights: str
    purpose: str


MODELS = {
    "photo": Model("shipped:mrda_lite_x4_photo", "any photograph, blurred, noisy, JPEG or clean; stays true to it"),
    "sharp": Model("shipped:mrda_lite_x4_photo_sharp", "any photograph; crisp textures, which may be invented"),
    "blur": Model("shipped:mrda_lite_x4_student", "out of focus but otherwise clean; sharpens noise and JPEG as well"),
}
DEFAULT_MODEL = "photo"
DEFAULT_WEIGHTS = MODELS[DEFAULT_MODEL].weights
MEMORY = 2**30  # bytes that feature maps may take on the CPU, which has other work as well
SMALLEST_TILE = 96  # pixels
LARGEST_TILE = 2048  # pixels; what still larger ones share of their area, below 2 %, no longer costs time


class Upscaler(NamedTuple):
    """A student, ready to restore."""

    net: MRDANet
    encode: Encode
    restore: Restore
    device: torch.device
    dtype: torch.dtype = torch.float32
    tile: int | None = None
    """Longest side of a tile, LR pixels; None: as memory allows."""
    overlap: int = OVERLAP


def open_upscaler(
    weights: str = DEFAULT_WEIGHTS,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "torch",
    tile: int | None = None,
    overlap: int = OVERLAP,
) -> Upscaler:
    """Make a student ready, by the names that the command line has.

    Args:
        weights: a file, or `shipped:<name>`.
        device: of `backend` torch and auto; the others compute on the CPU.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        backend: `torch`, `onnx`, `openvino`; `auto`: the faster of torch and OpenVINO, see `automatic_backend`.
        tile: longest side of a tile, LR pixels; None: as memory allows.
        overlap: of tiles, LR pixels.

    Raises:
        UserError: no such weights or device; a combination that cannot be.
    """
    place = find_device(device if backend in ("torch", "auto") else "cpu", dtype)
    net = student(weights)
    kind = fast_dtype(place) if dtype == "auto" else getattr(torch, dtype)
    if backend == "auto":
        backend = automatic_backend(net) if (place.type, kind) == ("cpu", torch.float32) else "torch"
    halves = network_functions(net, place, kind) if backend == "torch" else backend_functions(net, backend, kind)
    return Upscaler(net, *halves, place, kind, tile, overlap)


# ----------------------------------------------------------------------------------------- weights, device, memory
def find_device(name: str, dtype: str = "float32") -> torch.device:
    """Device of this name; `auto` is CUDA where there is one, else Apple's MPS.

    Raises:
        OptionError: it is not there, gives nothing back (`meta`), or cannot compute in `dtype`.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # an unknown name; a device that is not there
        reason = str(error).splitlines()[0]
        raise OptionError(f"--device {name}: cannot be used ({reason})") from error
    if device.type == "cpu" and dtype == "float16":
        raise OptionError("--dtype float16: takes a GPU; on the CPU choose bfloat16 or float32")
    if device.type == "cpu" and dtype == "bfloat16" and not numerics.computes_bfloat16(device):
        raise OptionError("--dtype bfloat16: this processor only emulates it, many times slower; choose float32")
    return device


def fast_dtype(device: torch.device) -> torch.dtype:
    """The shortest type that the device multiplies in at full speed; float32 on everything but CUDA."""
    if device.type != "cuda":
        return torch.float32
    major, _ = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32


def student(weights: str) -> MRDANet:
    """Read the weights of a student: a file, or `shipped:<name>`.

    Raises:
        UserError: no such weights, or those of another network.
    """
    path = shipped_weights(weights) if weights.startswith(PREFIX) else Path(weights)
    net = network_from_file(path)
    if not isinstance(net, MRDANet):
        raise CheckpointError(f"{path}: weights of MLN; upscaling takes those of a student")
    known = net.hyper_parameters(net.state_dict())
    if known["den_in_ch"] != known["num_in_ch"]:
        raise CheckpointError(f"{path}: weights of a teacher, which needs ground truth; take those of a student")
    if (known["num_in_ch"], known["num_out_ch"]) != (3, 3):
        raise CheckpointError(f"{path}: weights for {known['num_in_ch']} channels; upscaling takes RGB")
    return net


def automatic_tile(
    net: MRDANet, sides: tuple[int, int], device: torch.device, overlap: int, dtype: torch.dtype = torch.float32
) -> int | None:
    """Side of the tiles whose feature maps fit the memory; None if the whole image does.

    On a GPU that is half of what is free, and the fewer bytes of `dtype` count; on the CPU at most MEMORY.
    """
    position = bytes_a_pixel(net)
    memory = _free_memory(device) // 2
    if device.type == "cuda":
        position = position * (4 + dtype.itemsize) // 8  # half of it is the SR image, in float32 whatever `dtype` is
        pixels = min(memory // position, LARGEST_TILE**2)
    else:
        pixels = min(memory, MEMORY) // position
    if math.prod(sides) <= pixels:
        return None
    return max(math.isqrt(pixels), SMALLEST_TILE, 2 * overlap)


def bytes_a_pixel(net: MRDANet) -> int:
    """Memory that restoring takes, in float32, for each LR pixel of a tile: at most, as measured.

    Eight feature maps; of a narrow network the copies of the SR image, of which there are up to six, count more.
    """
    return 4 * max(8 * net.hyper_parameters(net.state_dict())["num_feat"], 6 * 3 * net.upscale**2)


def _free_memory(device: torch.device) -> int:
    """Bytes that can be had on the device; where nobody knows, more than MEMORY."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it for later
        return torch.cuda.mem_get_info(device)[0] + unused
    available = available_memory()
    return 4 * MEMORY if available is None else available


# --------------------------------------------------------------------------------------------------------- pictures
def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, C) uint8 or uint16 -> (1, C, H, W) in [0, 1]."""
    scaled = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None]


def to_pixels(image: Tensor, dtype: np.dtype) -> np.ndarray:
    """(1, C, H, W) -> (H, W, C), clipped and rounded."""
    return (image[0].clamp(0, 1) * np.iinfo(dtype).max).round_().permute(1, 2, 0).numpy().astype(dtype)
