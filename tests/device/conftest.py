"""Where the tests of this folder compute: on the mock device or, with `--device cuda`, on a GPU."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import basicsr.models.base_model
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mrda_options import command_line
from mrda_options.process import Process
from mrda_utils.numerics import computes_bfloat16

BF16 = {"gradients": 0.1, "movement": 0.3, "averaged": 1e-4, "losses": 0.02}


class Seen:
    """What happened on the device while it was watched."""

    waits: list[str]
    """What made the host wait for the device, and where."""
    launches: int
    """Operators that computed something there; each starts a kernel or several."""


class MockDevice:
    """The mock: `with` it, tensors may lie on it, and models that are built lie there."""

    name, option = "mock", "cpu"  # of the device; for option files, which know no mock

    def tolerance(self, bf16: bool) -> dict[str, float]:
        """Relative distance from the CPU's results: by the layouts that the CPU prefers, and rounding behind them.

        Where bfloat16 is emulated, another layout is another rounding of it.
        """
        if bf16 and not computes_bfloat16(torch.device("cpu")):
            return BF16
        return {"gradients": 1e-5, "movement": 1e-3, "averaged": 1e-6, "losses": 1e-5}

    def __init__(self) -> None:
        try:
            self.module = importlib.import_module("tests.device.mock")
        except (ImportError, AttributeError) as error:
            pytest.skip(f"torch {torch.__version__} lacks what the mock device is made of ({error})")

    def __enter__(self) -> None:
        self.mock = self.module.Mock()
        device = torch.device(self.name)  # without an index, as BasicSR names a GPU
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(
            basicsr.models.base_model, "torch", SimpleNamespace(**vars(torch) | {"device": lambda name: device})
        )
        self.patch.setattr(command_line, "start", lambda *_: Process(0, 1, device))
        self.mock.__enter__()

    def __exit__(self, *error: object) -> None:
        self.mock.__exit__(*error)
        self.patch.undo()

    @contextmanager
    def watched(self) -> Iterator[Seen]:
        seen, before, launches = Seen(), len(self.mock.waits), self.mock.launches
        yield seen
        seen.waits, seen.launches = self.mock.waits[before:], self.mock.launches - launches


class _Launches(TorchDispatchMode):
    """Counts as the mock does."""

    count = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        on_device = any(isinstance(leaf, Tensor) and leaf.is_cuda for leaf in tree_leaves(out))
        self.count += on_device and not op.is_view and "empty" not in op.name()
        return out


class CudaDevice:
    """A GPU. Convolutions compute in float32, not in tf32, and the same way each time."""

    name, option = "cuda", "cuda"

    def tolerance(self, bf16: bool) -> dict[str, float]:
        """Relative distance from the CPU's results; Adam's movement is the sign of gradients that are nearly zero."""
        if bf16:
            return BF16
        return {"gradients": 5e-3, "movement": 0.03, "averaged": 1e-5, "losses": 1e-4}

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        self.patch.setattr(torch.backends.cudnn, "deterministic", True)
        torch._C._set_multithreading_enabled(False)  # a backward pass is counted in the thread that asks for it

    def __exit__(self, *error: object) -> None:
        torch._C._set_multithreading_enabled(True)
        self.patch.undo()

    @contextmanager
    def watched(self) -> Iterator[Seen]:
        seen, launches = Seen(), _Launches()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught, launches:
                warnings.simplefilter("always")
                yield seen
        finally:
            torch.cuda.set_sync_debug_mode("default")
        synchronising = [w for w in caught if "synchronizing" in str(w.message)]
        seen.waits = [f"{w.message} at {w.filename}:{w.lineno}" for w in synchronising]
        seen.launches = launches.count


@pytest.fixture
def device(request):
    """The device, to be entered; what runs outside of it is the CPU's."""
    if request.config.getoption("--device") == "mock":
        return MockDevice()
    if not torch.cuda.is_available():
        pytest.skip("--device cuda: torch sees no CUDA device")
    return CudaDevice()
