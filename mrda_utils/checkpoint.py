"""The only module that writes and reads files of tensors: weights and training states."""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from mrda_utils import pickle_scan
from mrda_utils.errors import UserError
from mrda_utils.files import refusal_named, write_bytes, written_whole
from mrda_utils.pickle_scan import MOST_DIMENSIONS


class CheckpointError(UserError):
    """A checkpoint that cannot be read or used here."""


PROVENANCE_KEY = "mrda.provenance"  # in the metadata of .safetensors


_LONGEST_HEADER = 16 * 2**20  # of a .safetensors file, bytes; a weight takes a hundred
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INDICES = (torch.int64, torch.int32, torch.bool)  # buffers that are counts or indices, such as SwinIR's
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile


def save(content: dict[str, Any], path: Path) -> None:
    """Write `content` so that `path` has either all of it or its earlier content.

    Raises:
        UserError: the file system refused; nothing half-written stays behind.
    """
    with refusal_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            raise error.__context__ or error from None  # torch covers the file system's answer with one of its own


def is_whole(path: Path) -> bool:
    """Whether a file of `save` is there as it was written; without reading it into memory as `load` does."""
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:  # whatever a damaged file makes of the reader
        return False


def save_safetensors(weights: dict[str, Tensor], origin: dict | None, about: dict[str, str], path: Path) -> None:
    """Write weights as .safetensors, whole or not at all.

    Args:
        weights: state dict on the CPU.
        origin: what `load` finds under `mrda` in a .pth file, provenance and iteration; None if unknown.
        about: further metadata.
        path: file.

    Raises:
        UserError: the file system refused.
    """
    metadata = about if origin is None else {**about, PROVENANCE_KEY: json.dumps(origin)}
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()}, metadata)
    write_bytes(data, path)


def metadata(path: str | Path) -> dict[str, str]:
    """What a .safetensors file says about itself.

    Raises:
        CheckpointError: missing or damaged.
    """
    return _read_safetensors(path)[1]


def _read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        raise CheckpointError(f"{path}: damaged, or no safetensors file (a header of {length:,d} bytes)")
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            for name in names:
                if (dimensions := len(file.get_slice(name).get_shape())) > MOST_DIMENSIONS:
                    raise CheckpointError(f"{path}: {name} has {dimensions} dimensions; {MOST_DIMENSIONS} are allowed")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except CheckpointError:
        raise
    except Exception as error:  # SafetensorError, and what torch makes of sizes and types that it does not know
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: damaged, or no safetensors file ({first})") from error


def _load_safetensors(path: str | Path) -> dict[str, Any]:
    weights, about = _read_safetensors(path)
    if PROVENANCE_KEY not in about:
        return {"params": weights}
    try:
        return {"params": weights, "mrda": json.loads(about[PROVENANCE_KEY])}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: {PROVENANCE_KEY} in its metadata is no JSON of a few levels") from error


def _opened(path: str | Path) -> BinaryIO:
    """Open a file to read; a pipe or a device, which may never end, is none.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CheckpointError(f"{path}: cannot be read (a folder, pipe or device, no file)")
        return Path(path).open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def load(path: str | Path) -> dict[str, Any]:
    """Read a file of tensors and plain values onto the CPU; nothing in it is executed (see `pickle_scan`).

    A .safetensors file gives `params` and, if it says where it comes from, `mrda`, as a .pth file does.

    Raises:
        CheckpointError: missing, damaged, or with content other than tensors and plain values.
    """
    if Path(path).suffix == ".safetensors":
        return _load_safetensors(path)
    with _opened(path) as file:
        try:
            is_zip = file.read(4) == b"PK\x03\x04"
            whole = pickle_scan.read_parts(file) if is_zip else file
            pickle_scan.scan(whole)
            whole.seek(0)
            content = _copied(torch.load(whole, map_location="cpu", weights_only=True))
        except pickle_scan.RefusedError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except Exception as error:  # whatever a damaged or hostile file makes of the reader
            raise CheckpointError(f"{path}: damaged, or no file of tensors and plain values") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: contains a {type(content).__name__}, not a checkpoint")
    return content


def _copied(content: Any) -> Any:
    """Plain dictionaries, lists and tuples, and each tensor in storage of its own in the usual layout."""
    if isinstance(content, Tensor):
        return content.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(content, dict):
        return {key: _copied(value) for key, value in dict.items(content)}
    return type(content)(map(_copied, content)) if isinstance(content, list | tuple) else content


def weights_of(content: dict[str, Any], param_key: str, path: str | Path) -> dict[str, Tensor]:
    """Weights in what `load` read from `path`: under `param_key`, else `params`, else bare; without wrappers' prefixes.

    Raises:
        CheckpointError: something else is there, or weights that are not finite.
    """
    weights = content.get(param_key, content.get("params", content))
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path}: no weights under {param_key!r} or 'params'")
    if not weights or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in weights.items()):
        raise CheckpointError(f"{path}: contains no weights of a network")
    if sum(tensor.nbytes for tensor in weights.values()) > Path(path).stat().st_size:
        raise CheckpointError(f"{path}: damaged, its tensors are larger than the file")
    for name, tensor in weights.items():
        if tensor.dtype not in (*WEIGHT_DTYPES, *_INDICES):
            raise CheckpointError(f"{path}: {name} is of type {str(tensor.dtype).removeprefix('torch.')}, no weights")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} is not finite; the training diverged, take earlier weights")
    return {_WRAPPERS.sub("", name): tensor for name, tensor in weights.items()}


def reasons(error: RuntimeError) -> str:
    """Why `load_state_dict` refused weights, in one line."""
    first, *found = [line.strip() for line in str(error).splitlines()]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3] or [first]) + more
