"""Chains of trainings: runs that start from the weights of earlier ones, for train_chain.py and ablation.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from mrda_options import force, validate
from mrda_options.options import explain, other_kind
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_utils import checkpoint
from mrda_utils.errors import OptionError, UserError
from mrda_utils.fields import Count, Name, Section, did_you_mean
from mrda_utils.files import write_text
from mrda_utils.yaml_text import parse_yaml

WEIGHTS = "models/net_g_latest.pth"  # of a run


class Variant(Section):
    """One entry of `runs`: an option file, train_<stage>_x<scale>.yml in the folder of the list, with a few changes."""

    stage: Name
    weights: dict[str, Name] = Field({})
    """Key of the option file's `path` section to the run, further up in the list, whose weights it takes."""
    change: list[str] = Field([])
    """As for --force_yml."""
    steps: Count | None = None
    """Of adaptation; further ones than the option file's repeat its last learning rate."""


class Runs(Section):
    """A list of runs in which each may start from earlier ones."""

    runs: dict[Name, Variant] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Runs:
        earlier: list[str] = []
        for name, variant in self.runs.items():
            for other in variant.weights.values():
                if other not in self.runs:
                    raise ValueError(f"runs.{name}.weights: {other!r} is no run, {did_you_mean(other, [*self.runs])}")
                if other not in earlier:
                    raise ValueError(f"runs.{name}.weights: {other!r} must be listed above {name!r}")
            earlier.append(name)
        return self


class Chain(Runs):
    """A chain file, such as options/demo/chain.yml; its last run is what the chain is for."""

    name: Name
    scale: Literal[2, 3, 4]


R = TypeVar("R", bound=Runs)


def read_runs(path: Path, kind: type[R], flag: str) -> R:
    """Read a list of runs.

    Args:
        path: a file like options/demo/chain.yml or options/ablation/ablation.yml.
        kind: model of its content.
        flag: of the command line, for messages.

    Raises:
        OptionError: a mistake in it, named.
    """
    try:
        found = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        if isinstance(found, dict) and (other := other_kind(found, str(path))):
            raise OptionError(f"{path}: {other}")
        return kind.model_validate(found)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{flag} {path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    except ValidationError as error:
        raise OptionError(f"{path}: {explain(error)[0]}") from error


def needed(runs: dict[str, Variant], names: Iterable[str]) -> list[str]:
    """These runs and all that they build on, each once, in the order of the list."""
    found = set(names)
    for name, variant in reversed(runs.items()):  # a run's weights are listed above it
        if name in found:
            found.update(variant.weights.values())
    return [name for name in runs if name in found]


def run_options(
    name: str, variant: Variant, folder: Path, scale: int, run_name: Callable[[str], str], forced: list[str]
) -> dict:
    """A run's options: its stage's option file, the list's changes, and a name of its own.

    Args:
        name: of the run in the list.
        variant: its entry there.
        folder: of the option files.
        scale: upscaling factor.
        run_name: what a run of the list is called as a training.
        forced: changes of every run, as for --force_yml.

    Raises:
        OptionError: no such option file, or options that are not valid.
    """
    path = folder / f"train_{variant.stage}_x{scale}.yml"
    try:
        options = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read ({error.strerror}); run {name!r} needs it") from error
    force(options, [*variant.change, *forced])
    if variant.steps is not None:
        inner_lrs = options["adaptation"]["inner_lrs"]
        options["adaptation"]["inner_lrs"] = [inner_lrs[min(n, len(inner_lrs) - 1)] for n in range(variant.steps)]
    paths = options.setdefault("path", {})
    experiments = paths.get("experiments_root", "experiments")
    paths |= {key: f"{experiments}/{run_name(other)}/{WEIGHTS}" for key, other in variant.weights.items()}
    options |= {"name": run_name(name), "path": paths}
    validate(options, True, f"{path}, run {name!r}")
    return options


def train(options: dict, root: Path, folder: Path) -> None:
    """Train a run to its end, from where an earlier attempt stopped; a complete one is left alone.

    Args:
        options: see `run_options`.
        root: folder of train.py.
        folder: where the run's option file is written.

    Raises:
        UserError: a run of this name was trained with other options; a mistake in data or checkpoints.
    """
    weights = weights_path(options, root)
    trained = weights.parents[1] / f"{options['name']}.yml"
    if trained.is_file() and (others := _different(parse_yaml(trained.read_text("utf-8"), str(trained)), options)):
        raise UserError(
            f"{trained}: this run has other options than it would have now ({'; '.join(others[:3])}); choose another "
            "name, or move its folder away"
        )
    if weights.is_file() and checkpoint.load(weights)["mrda"]["iteration"] == options["train"]["total_iter"]:
        print(f"{options['name']}: complete")  # noqa: T201
        return
    path = folder / f"{options['name']}.yml"
    write_text(yaml.safe_dump(options, sort_keys=False), path)
    train_pipeline(root, ["-opt", str(path), "--auto_resume"])


def weights_path(options: dict, root: Path) -> Path:
    """Path of a run's final weights."""
    return root / options["path"].get("experiments_root", "experiments") / options["name"] / WEIGHTS


def _different(old: dict, new: dict, section: str = "") -> list[str]:
    """Differences of two options, one line per key."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            lines += _different(before, now, f"{section}{key}.")
        elif before != now:
            lines.append(f"{section}{key}: {before}, now {now}")
    return lines
