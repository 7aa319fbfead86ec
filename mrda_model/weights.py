"""Weights of a stage's networks: where they come from, and which stage takes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge, Le, Len
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from mrda_utils.checkpoint import WEIGHT_DTYPES, CheckpointError, load, reasons, save, weights_of

Text = Annotated[str, Len(0, 10_000)]
"""Of a provenance; it may come from a stranger's file."""


class Provenance(NamedTuple):
    """Where weights come from; stored with them and compared when a stage loads them."""

    stage: Text
    scale: Annotated[int, Ge(1), Le(100)]
    degradation: Text | None
    """What the weights were trained on; None where the file does not say."""


_PROVENANCE = TypeAdapter(Provenance)


def provenance_of(content: dict[str, Any], path: str | Path) -> Provenance | None:
    """Where the content of a file comes from; None if the file does not say.

    Raises:
        CheckpointError: what is written there makes no sense.
    """
    if "mrda" not in content:
        return None
    origin = content["mrda"] if isinstance(content["mrda"], dict) else {}
    try:
        return _PROVENANCE.validate_python({key: origin.get(key) for key in Provenance._fields}, strict=True)
    except ValidationError as error:
        reason = "damaged, what it says about its stage, scale and degradation makes no sense"
        raise CheckpointError(f"{path}: {reason}") from error


def different_parts(a: str, b: str) -> tuple[str, str]:
    """Entries of two lists of options, `name value, name value ...`, that the other one lacks."""
    parts_a, parts_b = (re.split(r", (?=\w+ )", text) for text in (a, b))
    return (
        ", ".join(part for part in parts_a if part not in parts_b),
        ", ".join(part for part in parts_b if part not in parts_a),
    )


def save_network(nets: dict[str, nn.Module], provenance: Provenance, iteration: int, path: Path) -> None:
    """Write `nets` ({params: net} or {params, params_ema}) in BasicSR's layout, with provenance under `mrda`."""
    content: dict[str, Any] = {
        key: {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()} for key, net in nets.items()
    }
    content["mrda"] = {**provenance._asdict(), "iteration": iteration}
    save(content, path)


def load_network(
    net: nn.Module,
    path: str | Path,
    param_key: str = "params_ema",
    stage: str | tuple[str, ...] | None = None,
    degradation: str | None = None,
) -> None:
    """Load weights strictly; accepts `params_ema`, `params`, a bare state dict and `module.` prefixes.

    Args:
        net: network that takes the weights.
        path: file.
        param_key: what to prefer; without it, `params` serves.
        stage: refuse the weights of a stage other than this or these (where the file says which).
        degradation: refuse weights trained on another degradation (likewise).

    Raises:
        CheckpointError: damaged, of another stage, degradation or scale, or weights that do not fit.
    """
    content = load(path)
    if origin := provenance_of(content, path):
        wanted = (stage,) if isinstance(stage, str) else stage
        if wanted is not None and origin.stage not in wanted:
            raise CheckpointError(f"{path}: weights of stage {origin.stage}, expected {' or '.join(wanted)}")
        if degradation is not None and origin.degradation not in (None, degradation):
            theirs, ours = different_parts(origin.degradation, degradation)
            raise CheckpointError(f"{path}: trained on degradation '{theirs}', the option file says '{ours}'")
        if getattr(net, "upscale", origin.scale) != origin.scale:
            raise CheckpointError(f"{path}: weights for scale {origin.scale}, the option file says {net.upscale}")
    weights, own = weights_of(content, param_key, path), net.state_dict()
    for name in filter(own.__contains__, weights):
        if weights[name].dtype not in (WEIGHT_DTYPES if own[name].dtype in WEIGHT_DTYPES else (own[name].dtype,)):
            found, needed = (str(tensors[name].dtype).removeprefix("torch.") for tensors in (weights, own))
            raise CheckpointError(f"{path}: {name} is of type {found}, {type(net).__name__} needs {needed}")
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = _other_sizes(net, weights) or reasons(error)
        raise CheckpointError(f"{path}: does not fit {type(net).__name__}: {reason}") from error


def _other_sizes(net: nn.Module, weights: dict[str, Tensor]) -> str:
    """Arguments of one of our networks that differ in the weights; empty where these do not show them."""
    try:
        theirs, ours = (net.hyper_parameters(state) for state in (weights, net.state_dict()))
    except (AttributeError, ValueError):  # another network, or no weights of this one
        return ""
    differ = [key for key in ours if theirs[key] != ours[key]]
    return "; ".join(f"{key} is {theirs[key]} in the file, {ours[key]} in the options" for key in differ)
