"""Sections that name an object of BasicSR's registries: their keys are read off its signature."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Len
from basicsr.utils import registry
from pydantic import (
    AfterValidator,
    Field,
    GetPydanticSchema,
    SerializeAsAny,
    TypeAdapter,
    WrapValidator,
    create_model,
)
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from mrda_data.degradation import KINDS
from mrda_utils.fields import Count, Section, did_you_mean

LARGEST_WIDTH = 1024  # of a network: channels, blocks
LARGEST_NETWORK = 2**30  # parameters, 4 GiB
LARGEST_TABLES = 2**26  # numbers in a network's buffers, such as SwinIR's masks; and parameters, see `registered`
MOST_MODULES = 10_000  # of a network, all layers counted; RCAN has 2,500

# BasicSR's arguments have no annotations, and its words are not ours
_ARGUMENTS = {
    "loss_weight": Annotated[float, Ge(0), Field(description="factor of this loss")],
    "reduction": Annotated[Literal["mean", "sum"], Field(description="over all values of the batch")],
    "eps": Annotated[float, Gt(0), Field(description="added to the squared error under the root")],
    "crop_border": Annotated[int, Ge(0), Field(description="left out at each side, pixels; the protocols': scale")],
    "test_y_channel": Annotated[bool, Field(description="measure Y (BT.601, 16-235) instead of RGB")],
    "num_in_ch": Annotated[int, Ge(1), Field(description="channels of the image")],
    "num_out_ch": Annotated[int, Ge(1), Field(description="channels of the SR image")],
    "in_chans": Annotated[int, Ge(1), Field(description="channels of the image")],
    "num_feat": Annotated[int, Ge(1), Field(description="channels of the first convolution")],
    "embed_dim": Annotated[int, Ge(1), Field(description="channels of the first convolution")],
    "num_channel": Annotated[int, Ge(1), Field(description="channels of the blocks")],
    "num_block": Annotated[int, Ge(1), Field(description="residual blocks, of each group where there are groups")],
    "num_group": Annotated[int, Ge(1), Field(description="groups of residual blocks")],
    "num_conv": Annotated[int, Ge(1), Field(description="convolutions between the first and the last")],
    "num_grow_ch": Annotated[int, Ge(1), Field(description="channels that each layer of a dense block adds")],
    "squeeze_factor": Annotated[int, Ge(1), Field(description="channels over those of the attention's bottleneck")],
    "res_scale": Annotated[float, Gt(0), Field(description="factor of each block's residual")],
    "upscale": Annotated[int, Ge(1), Field(description="upscaling factor")],
    "scale": Annotated[int, Ge(1), Field(description="upscaling factor")],
    "img_range": Annotated[float, Gt(0), Field(description="largest value inside the network; images are in [0, 1]")],
    "rgb_mean": Annotated[list[float], Len(3, 3), Field(description="subtracted from the image; RGB in [0, 1]")],
    "with_idt": Annotated[bool, Field(description="add a block's input to its output")],
    "act_type": Annotated[
        Literal["relu", "prelu", "leakyrelu", "rrelu", "softplus", "linear"],
        Field(description="activation; no network has all of these"),
    ],
    "img_size": Annotated[int, Ge(1), Field(description="side of the LR patches of the training")],
    "window_size": Annotated[int, Ge(1), Field(description="side of an attention window; LR images are padded to it")],
    "depths": Annotated[list[Count], Field(description="layers of each block")],
    "num_heads": Annotated[list[Count], Field(description="attention heads of each block")],
    "mlp_ratio": Annotated[float, Gt(0), Field(description="hidden channels over embed_dim")],
    "qkv_bias": Annotated[bool, Field(description="bias of query, key and value")],
    "patch_norm": Annotated[bool, Field(description="normalise after the patch embedding")],
    "upsampler": Annotated[
        Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""], Field(description="tail of the network")
    ],
    "resi_connection": Annotated[Literal["1conv", "3conv"], Field(description="convolutions at the end of a block")],
    "skip_connection": Annotated[bool, Field(description="join layers of equal size")],
    "convert_to": Annotated[Literal["y", "gray"], Field(description="measure Y (BT.601, 16-235) or gray")],
}


def registered(kind: str, names: Collection[str], skip: tuple[str, ...] = (), **fields: Any) -> Any:
    """Type of a mapping `type` + that object's arguments, `type` being in BasicSR's registry of this kind.

    Args:
        kind: ARCH, LOSS, METRIC ...
        names: types that make sense here; looked at anew each time, so that later ones are known too.
        skip: arguments that do not come from the option file.
        fields: keys beside the arguments: (type, default).
    """

    def find(name: str) -> Any:
        known = dict(iter(getattr(registry, f"{kind}_REGISTRY")))
        return known.get(name) or known[f"{name}_basicsr"]  # BasicSR's own architectures have this suffix

    def model(name: str) -> type[Section]:
        return _signature_model(find(name), name, skip, fields)

    def check(value: dict[str, Any]) -> dict[str, Any]:
        name = value.get("type")
        if not isinstance(name, str) or name not in names:
            raise ValueError(f"type: {name!r} is not known here, {did_you_mean(str(name), list(names))}")
        checked = model(name).model_validate(value).model_dump(exclude_none=True)
        if inspect.isclass(find(name)):
            for key, item in checked.items() if kind == "ARCH" else ():
                for number in item if isinstance(item, list) else [item]:
                    if type(number) is int and not 1 <= number <= LARGEST_WIDTH:
                        raise ValueError(f"{key}: {number} is not between 1 and {LARGEST_WIDTH}")
            try:  # shows values that do not go together
                _build(find(name), {key: item for key, item in checked.items() if key != "type"})
            except Exception as error:  # whatever a constructor makes of them
                raise ValueError(f"{name} cannot be built: {error}") from error
        return checked

    def json_schema(_: Any, handler: Any) -> dict[str, Any]:
        schemas = [handler(model(name).__pydantic_core_schema__) for name in names]
        return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}

    return Annotated[dict[str, Any], AfterValidator(check), GetPydanticSchema(None, json_schema)]


def _build(target: type, arguments: dict[str, Any]) -> None:
    """Construct it on the meta device, where numbers take no memory, or really where that cannot be (ECBSR).

    Raises:
        ValueError: it has more layers or numbers than a network may have; said as soon as there are too many.
    """
    try:
        with _bounded(LARGEST_NETWORK), torch.device("meta"), _ItemIsZero():
            target(**arguments)
    except (RuntimeError, TypeError) as error:
        if "meta" not in str(error):
            raise
        with _bounded(LARGEST_TABLES):
            target(**arguments)


class _ItemIsZero(TorchFunctionMode):
    """Gives numbers of the meta device a value: SwinIR reads rates of a regularisation that is off here."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return 0.0 if function is torch.Tensor.item else function(*args, **(kwargs or {}))


@contextmanager
def _bounded(most_parameters: int) -> Iterator[None]:
    """Count each part that a network registers while it is built."""
    limits = {"layers": MOST_MODULES, "parameters": most_parameters, "numbers in its buffers": LARGEST_TABLES}
    counts = dict.fromkeys(limits, 0)

    def count(what: str, number: int) -> None:
        counts[what] += number
        if counts[what] > limits[what]:
            raise ValueError(f"more than {limits[what]:,d} {what}")

    def numbers(what: str) -> Callable[..., None]:
        return lambda _, __, tensor: count(what, 0 if tensor is None else tensor.numel())

    with ExitStack() as stack:
        for handle in (
            register_module_module_registration_hook(lambda *_: count("layers", 1)),
            register_module_parameter_registration_hook(numbers("parameters")),
            register_module_buffer_registration_hook(numbers("numbers in its buffers")),
        ):
            stack.callback(handle.remove)
        yield


def _signature_model(target: Any, name: str, skip: tuple[str, ...], extra: dict[str, Any]) -> type[Section]:
    """Keys of the object registered as `name`; our own docstrings describe them."""
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    docstring = inspect.getdoc(target) if target.__module__.startswith("mrda_") else ""
    summary, _, arguments = docstring.partition("Args:\n")
    described = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE))
    fields: dict[str, Any] = {"type": (Annotated[Literal[name], Field(description="registered name")], ...), **extra}
    for parameter in inspect.signature(target).parameters.values():
        key = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD or key in skip:
            continue
        hint = hints.get(key, _ARGUMENTS.get(key, Any))
        if key in described:
            hint = Annotated[hint, Field(description=" ".join(described[key].split()).rstrip("."))]
        default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        fields[key] = (hint, ... if default is parameter.empty else default)
    return create_model(name, __base__=Section, __doc__=summary.split("\n")[0] or None, **fields)


def degradation(*kinds: str) -> Any:
    """Type of a `degradation` section: one of these kinds, or of all that are registered at the time."""

    def union() -> Any:
        return Annotated[reduce(or_, (KINDS[kind].options for kind in kinds or KINDS)), Field(discriminator="type")]

    # the schema for editors has those that are registered now; a check knows later ones, too
    return Annotated[
        SerializeAsAny[union()], WrapValidator(lambda value, _: TypeAdapter(union()).validate_python(value))
    ]
