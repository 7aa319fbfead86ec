"""Training states: the files from which a run resumes, and which of them are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Len, Lt
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import NotRequired, TypedDict  # pydantic wants this one before Python 3.12

from mrda_model.weights import Text, provenance_of
from mrda_utils.checkpoint import CheckpointError, is_whole, load

_Condition = Annotated[str, Len(0, 500_000)]  # an option, of a file of 100,000 characters at most


class _Best(TypedDict):
    val: float
    iter: int


class _State(TypedDict):
    """A training state, as far as its reader relies on it."""

    iter: Annotated[int, Ge(0), Lt(2**63)]
    mrda: dict[str, Any]
    optimizers: list[dict[str, Any]]
    best_metric_results: dict[str, dict[str, _Best]]
    validated_iter: Annotated[int, Ge(0), Lt(2**63)]
    skipped: Annotated[list[float], Len(2, 2)]
    conditions: NotRequired[dict[Text, _Condition]]  # since 0.3.0


_STATE = TypeAdapter(_State)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a training state.

    Raises:
        CheckpointError: see `load`; or it is no training state of this project.
    """
    content = load(path)
    try:
        _STATE.validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise CheckpointError(f"{path}: no training state of this project ({where}: {first['msg']})") from error
    provenance_of(content, path)
    return content


def load_moments(optimizer: torch.optim.Adam, stored: dict[str, Any], path: Path) -> None:
    """Load the moments of an earlier `state_dict` into an optimizer; its settings stay.

    Each moment is copied into the layout of its weight: torch would keep the file's, which fused steps do not look at.

    Raises:
        CheckpointError: they do not fit, or are not finite.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def fits(index: Any, moments: Any) -> bool:
        if type(index) is not int or not 0 <= index < len(parameters) or not isinstance(moments, dict):
            return False
        shapes = {"step": torch.Size(), "exp_avg": parameters[index].shape, "exp_avg_sq": parameters[index].shape}
        return moments.keys() == shapes.keys() and all(
            isinstance(moment, Tensor)
            and moment.dtype.is_floating_point
            and moment.shape == shapes[name]
            and bool(moment.isfinite().all())
            for name, moment in moments.items()
        )

    state = stored.get("state")
    if not isinstance(state, dict) or not all(fits(index, moments) for index, moments in state.items()):
        raise CheckpointError(f"{path}: the optimizer's state does not fit the network, or is not finite")
    moments = {
        index: {
            name: moment.clone() if name == "step" else torch.empty_like(parameters[index]).copy_(moment)
            for name, moment in own.items()
        }
        for index, own in state.items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def states(folder: Path) -> list[Path]:
    """Return the training states of a run, newest first."""
    found = [p for p in folder.glob("*.state") if re.fullmatch(r"\d+", p.stem)] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.stem), reverse=True)


def network_of_state(state_path: Path, label: str) -> Path:
    """Return the weights file that belongs to `<run>/training_states/<iteration>.state`."""
    return state_path.parent.parent / "models" / f"net_{label}_{state_path.stem}.pth"


def prune(run: Path, keep_last: int | None) -> None:
    """Delete all but the newest `keep_last` states of a run and the weights that belong to them; None keeps all.

    A damaged state does not count among them, so the last good one is never deleted. States that the run did not go on
    from (`6.state.abandoned`) go with their weights, unless there is a state of that iteration again. `net_g_best.pth`
    and `net_g_latest.pth` belong to no state and stay.

    Raises:
        CheckpointError: a file that cannot be deleted.
    """
    if keep_last is None:
        return
    folder, kept, superfluous = run / "training_states", 0, []
    for path in states(folder):
        net_g, net_d = (network_of_state(path, label) for label in ("g", "d"))
        if kept < keep_last:
            kept += is_whole(path) and is_whole(net_g) and (is_whole(net_d) or not net_d.exists())
        else:
            superfluous.append(path)
    for path in [*superfluous, *folder.glob("*.state.abandoned")]:
        state = path.with_name(path.name.removesuffix(".abandoned"))
        try:
            path.unlink()  # first: a state without weights would be a damaged one
            if not state.exists():
                for label in ("g", "d"):
                    network_of_state(state, label).unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be deleted ({error.strerror})") from error
