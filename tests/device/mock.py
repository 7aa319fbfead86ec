"""A device that is none: tensors that claim to lie on `mock:0`, which the CPU computes.

Inside `with Mock()` they behave to the code around them like tensors of a GPU:

- tensors of two devices that meet in one operation raise DeviceError, and so does a generator of another device;
  scalars of the host are taken where CUDA takes them;
- fused Adam refuses a gradient or moment whose strides are not the weight's;
- what would make the host wait for a GPU is noted in `waits`, with the line of ours that asked for it;
- `launches` counts operators that compute something: each starts a kernel or several.

Importing this module registers the device for the rest of the process. Tensors of other devices, and everything outside
of `with Mock()`, are left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "mock"
HERE = f"{Path(__file__).resolve().parent}/"
ROOT = f"{Path(__file__).resolve().parents[2]}/"

COPIES = {aten._to_copy, aten.copy_}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# their results, or the shapes of them, depend on values that lie on the device
READS = {
    aten._local_scalar_dense,
    aten.bincount,
    aten.equal,
    aten.masked_select,
    aten.nonzero,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
}
# beside pointwise operators, these take a scalar of the host as one more argument
TAKE_SCALARS = {aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_}
# hand out memory, and compute nothing
ALLOCATE = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}


class DeviceError(RuntimeError):
    """What a GPU would refuse."""


class MockTensor(torch.Tensor):
    """A tensor of the CPU, `inner`, that claims to lie on the device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> MockTensor:
        with torch.inference_mode(inner.is_inference()):
            claimed = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=torch.device(NAME, 0),
            )
        claimed.inner = inner
        return claimed

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        if not Mock.active:
            raise DeviceError(f"{op} on a tensor of the mock device, outside of `with Mock()`")
        return Mock.active[-1].run(op, args, kwargs or {})

    def tolist(self):  # the one read that passes by the dispatcher
        return self.cpu().tolist()

    def numpy(self, **kwargs):
        raise TypeError("can't convert a tensor of the mock device to numpy; use Tensor.cpu() first")

    def __reduce_ex__(self, protocol):  # for torch.save
        return self.inner.__reduce_ex__(protocol)

    def __repr__(self):
        return f"MockTensor({self.inner!r})"


class MockGenerator(torch.Generator):
    """A generator of the device; it draws other numbers than the CPU's of the same seed."""

    device = property(lambda self: torch.device(NAME, 0))
    made: dict[int, MockGenerator] = {}  # noqa: RUF012  (an operator is handed another object of the same address)

    def __init__(self) -> None:
        self.made[self._cdata] = self

    def manual_seed(self, seed: int) -> MockGenerator:
        super().manual_seed(seed ^ 0x5EED)
        return self


def generator(device: torch.device | str = "cpu") -> torch.Generator:
    """To stand in the place of `torch.Generator`, which knows no device that Python registers."""
    return MockGenerator() if torch.device(device).type == NAME else GENERATOR(device)


def _enter_inference_mode(mode: torch.inference_mode) -> None:
    """Entering it, or leaving it for a while, would enable the threads."""
    ENTER_INFERENCE_MODE(mode)
    torch._C._set_multithreading_enabled(False)


GENERATOR, ENTER_INFERENCE_MODE = torch.Generator, torch.inference_mode.__enter__


class Mock(TorchDispatchMode):
    """The device, while the context lasts."""

    active: list[Mock] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.launches = 0
        self._pinned: dict[int, torch.UntypedStorage] = {}

    def __enter__(self) -> Mock:
        super().__enter__()
        self.active.append(self)
        self._arrange()
        return self

    def __exit__(self, *error: object) -> None:
        self.active.pop()
        self._arrange()
        super().__exit__(*error)

    def _arrange(self) -> None:
        # torch has a thread for the backward passes of each device that was there at the first one: none for this
        torch._C._set_multithreading_enabled(not self.active)
        torch.inference_mode.__enter__ = _enter_inference_mode if self.active else ENTER_INFERENCE_MODE
        # net.to(): new parameters, since those of the CPU cannot become MockTensors
        torch.__future__.set_overwrite_module_params_on_conversion(bool(self.active))
        torch.Generator = generator if self.active else GENERATOR

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op._can_decompose():  # in inference mode, where autograd has not done it
            with self:
                return op.decompose(*args, **(kwargs or {}))
        return self.run(op, args, kwargs or {})

    # ---------------------------------------------------------------------------------------------------------- rules
    def run(self, op: torch._ops.OpOverload, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Check an operator's arguments, compute it on the CPU, and claim what comes of it."""
        packet, leaves = op.overloadpacket, tree_leaves((args, kwargs))
        ours = [leaf for leaf in leaves if isinstance(leaf, MockTensor)]
        others = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, MockTensor)]
        if packet is aten.is_pinned:
            return not ours and others[0].untyped_storage().data_ptr() in self._pinned
        if packet is aten._pin_memory:
            return self._pin(*args)
        target = kwargs.get("device") or (args[0].device if packet in COPIES else None)
        on_device = bool(ours) if target is None else torch.device(target).type == NAME

        if packet in COPIES:
            self.check_copy(args[packet is aten.copy_], on_device, kwargs.get("non_blocking") or True in args[2:])
        elif ours:
            self._check_reads(op, args, others)
            self._check_places(op, args, others)
        self._check_generators(op, leaves, on_device)
        if op.name().startswith("aten::_fused_adam"):
            _check_strides(op, args)

        own = {id(tensor.inner): tensor for tensor in ours}
        args, kwargs = tree_map(lambda leaf: leaf.inner if isinstance(leaf, MockTensor) else leaf, (args, kwargs))
        if "device" in kwargs and on_device:
            kwargs = kwargs | {"device": torch.device("cpu")}
        out = (aten.zeros.default if packet is aten._efficientzerotensor else op)(*args, **kwargs)
        if on_device and not op.is_view and packet not in ALLOCATE:
            self.launches += 1
        for tensor in ours:
            if (tensor.shape, tensor.stride()) != (tensor.inner.shape, tensor.inner.stride()):
                raise NotImplementedError(f"{op}: the mock device does not follow a tensor that changes its shape")
        if not on_device:
            return out

        def claim(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            return own[id(leaf)] if id(leaf) in own else MockTensor(leaf)

        return tree_map(claim, out)

    def _wait(self, what: str) -> None:
        """Note it, with the innermost line of the project that asked for it."""
        frame = sys._getframe()
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(ROOT) and not file.startswith(HERE) and "site-packages" not in file:
                what += f" at {file.removeprefix(ROOT)}:{frame.f_lineno}"
                break
            frame = frame.f_back
        self.waits.append(what)

    def _pin(self, tensor: torch.Tensor, device: object = None) -> torch.Tensor:
        if isinstance(tensor, MockTensor):
            raise DeviceError("only tensors of the CPU can be pinned")
        tensor = tensor.clone()
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()  # kept: its address stays its own
        return tensor

    def check_copy(self, source: torch.Tensor, to_device: bool, non_blocking: bool) -> None:
        """Note a copy that the host waits for."""
        if isinstance(source, MockTensor) == to_device:
            return
        if not to_device:
            self._wait("copy to the host")
        elif not non_blocking:
            self._wait("blocking copy to the device")
        elif source.untyped_storage().data_ptr() not in self._pinned:
            self._wait("copy to the device out of memory that is not pinned")

    def _check_reads(self, op: torch._ops.OpOverload, args: tuple, others: list[torch.Tensor]) -> None:
        if op.overloadpacket in READS:
            self._wait(str(op))
        elif op.overloadpacket in INDEXING:
            masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
            if masks or others:
                self._wait(f"{op} by {'a mask' if masks else 'what lies on the host'}")

    def _check_places(self, op: torch._ops.OpOverload, args: tuple, others: list[torch.Tensor]) -> None:
        packet = op.overloadpacket
        if not others or packet in INDEXING:
            return
        takes_scalars = torch.Tag.pointwise in op.tags or packet in TAKE_SCALARS
        writes_to_host = op._schema.is_mutable and any(args[0] is tensor for tensor in others)
        if not takes_scalars or writes_to_host or any(tensor.dim() for tensor in others):
            raise DeviceError(f"{op}: tensors of the mock device meet {[list(t.shape) for t in others]} on the CPU")

    def _check_generators(self, op: torch._ops.OpOverload, leaves: list[Any], on_device: bool) -> None:
        for leaf in leaves:
            if isinstance(leaf, GENERATOR) and (leaf._cdata in MockGenerator.made) != on_device:
                raise DeviceError(f"{op}: a generator of another device")


def _check_strides(op: torch._ops.OpOverload, args: tuple) -> None:
    """Fused Adam walks through memory; it looks at no strides."""
    for weight, *others in zip(*args[:4], strict=True):
        for tensor in others:
            differ = [
                a != b and side > 1 for side, a, b in zip(weight.shape, weight.stride(), tensor.stride(), strict=True)
            ]
            if any(differ):
                raise DeviceError(f"{op}: strides {tensor.stride()} beside the weight's {weight.stride()}")


# ------------------------------------------------------------------------------------------------------- registration
# of autocast's lists on CUDA, what a network or loss here may use; the others compute in the dtype that comes
LOWER_PRECISION = (aten.conv2d, aten.convolution, aten.linear, aten.matmul, aten.mm, aten.bmm, aten.addmm, aten.baddbmm)
FLOAT32 = (
    *(aten.exp, aten.log, aten.pow, aten.rsqrt, aten.prod, aten.sum, aten.cumsum, aten.norm, aten.softplus),
    *(aten.softmax, aten.log_softmax, aten.layer_norm, aten.group_norm, aten.cosine_similarity),
    *(aten.l1_loss, aten.mse_loss, aten.smooth_l1_loss, aten.kl_div, aten.binary_cross_entropy_with_logits),
)


def _autocast(op: torch._ops.OpOverload, dtype: torch.dtype | None, *args: Any, **kwargs: Any) -> Any:
    """An operator on arguments of `dtype`, by default autocast's own."""
    wanted = dtype or torch.get_autocast_dtype(NAME)

    def cast(leaf: Any) -> Any:
        is_float = isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.float32, torch.float16, torch.bfloat16)
        return leaf.to(wanted) if is_float else leaf

    with torch.autocast(NAME, enabled=False):
        return op(*(cast(arg) for arg in args), **kwargs)


def _overloads(packets: Iterable[torch._ops.OpOverloadPacket]) -> Iterable[torch._ops.OpOverload]:
    return (getattr(packet, name) for packet in packets for name in packet.overloads() if "out" not in name)


def _on_cpu(op: Callable, *args: Any, **kwargs: Any) -> MockTensor:
    return MockTensor(op(*args, **kwargs | {"device": "cpu"}))


def _copy_from(source: torch.Tensor, target: MockTensor, non_blocking: bool = False) -> MockTensor:
    Mock.active[-1].check_copy(source, True, non_blocking)
    target.inner.copy_(source)
    return target


def _register() -> list[torch.library.Library]:
    """Make the device known to torch; the libraries must live on."""
    module = _DummyBackendModule()
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    _setup_privateuseone_for_python_backend(NAME, module)
    every, own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for packets, dtype in ((LOWER_PRECISION, None), (FLOAT32, torch.float32)):
        for op in _overloads(packets):
            own.impl(op, partial(_autocast, op, dtype), "AutocastPrivateUse1")
    # indices that torch itself makes out of lists, behind the back of a mode
    for op in (aten.empty.memory_format, aten.empty_strided.default):
        own.impl(op, partial(_on_cpu, op), "PrivateUse1")
    own.impl("_copy_from", _copy_from, "PrivateUse1")
    return [every, own]


LIBRARIES = _register()
