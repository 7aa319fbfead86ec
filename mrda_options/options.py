"""Option files: safe YAML, checked against the schema, one plain dict for BasicSR's builders."""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mrda_data.degradation import KINDS
from mrda_options.stages import STAGES, TestOptions
from mrda_utils.errors import OptionError
from mrda_utils.fields import did_you_mean
from mrda_utils.yaml_text import MAX_BYTES, parse_yaml

_MAX_MISTAKES = 10  # reported at once


_NAMED = ("datasets", "baselines", "metrics")
"""Sections whose keys are names of the user's, so that null takes an entry out."""
_BASICSR = ("SRModel", "SRGANModel", "ESRGANModel", "RealESRNetModel", "RealESRGANModel", "SwinIRModel")


def force(options: dict, entries: list[str]) -> None:
    """Apply `--force_yml section:key=value` entries in place; values are YAML, unknown keys fail in `validate`.

    Null takes a data set, a baseline or a metric out.

    Raises:
        OptionError: an entry that is none, or that takes out what is not there.
    """
    for entry in entries:
        keys, equals, value = entry.partition("=")
        if not equals:
            raise OptionError(f"--force_yml {entry}: expected section:key=value")
        *sections, last = keys.strip().split(":")
        target = options
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise OptionError(f"--force_yml {entry}: {section} is not a section")
        before = [*target]
        target[last] = parse_yaml(value, f"--force_yml {entry}")
        if target[last] is None and sections and sections[-1] in _NAMED:
            del target[last]
            if last not in before:
                raise OptionError(f"--force_yml {entry}: {last!r} is not there, {did_you_mean(last, list(before))}")


def _where(location: tuple[int | str, ...]) -> str:
    sets = ("GTDataset", "BenchmarkDataset", "LQDataset", "PairedDataset")
    schedulers = ("MultiStepLR", "CosineAnnealingLR", "CosineAnnealingRestartLR")
    tags = {*KINDS, *sets, *schedulers, "literal['auto']", "constrained-int", "[key]"}  # pydantic's, between the keys
    return ".".join(str(part) for part in location if part not in tags)


def explain(error: ValidationError) -> list[str]:
    """The mistakes, one line each."""
    lines = []
    for item in error.errors():
        where = _where(item["loc"])
        if item["type"] == "missing":
            lines.append(f"{where}: missing")
        elif item["type"] == "union_tag_not_found":
            lines.append(f"{where}.type: missing")
        elif item["type"] == "union_tag_invalid":
            tag, known = item["ctx"]["tag"], re.findall("'(.+?)'", item["ctx"]["expected_tags"])
            lines.append(f"{where}.type: {tag!r}, {did_you_mean(tag, known)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if item["type"] == "value_error" else f"{reprlib.repr(item['input'])}: "
            lines.append(f"{where}{': ' if where else ''}{shown}{message}")
    more = len(lines) - _MAX_MISTAKES
    return lines[:_MAX_MISTAKES] + ([f"and {more} more"] if more > 0 else [])


def _unknown(model_type: Any, known: list[str]) -> str:
    return f"model_type: {model_type!r}, {did_you_mean(str(model_type), known)}"


def other_kind(options: dict, name: str) -> str | None:
    """The program that takes an option file which is valid, but not here."""
    model_type = options.get("model_type")
    if model_type == "MRDATestModel":
        return f"a test's option file; run 'python test.py -opt {name}'"
    if model_type in list(STAGES):
        return f"a training's option file; run 'python train.py -opt {name}'"
    if model_type in _BASICSR or "num_gpu" in options:
        return (
            f"an option file of BasicSR's own (model_type {model_type}); it goes to BasicSR's train.py, with 'import "
            "mrda_arch' as its first line to have our networks there (README)"
        )
    return None


def validate(options: Any, is_train: bool | None, name: str) -> dict:
    """Check parsed options against their stage's schema and fill in the defaults.

    Args:
        options: what `parse_yaml` returned.
        is_train: a stage's options, or a test's; None for either.
        name: file name for messages.

    Raises:
        OptionError: one line for each mistake, naming key and value.
    """
    if not isinstance(options, dict):
        raise OptionError(f"{name}: expected sections, found {type(options).__name__}")
    test = {"MRDATestModel": TestOptions}
    known = {True: STAGES, False: test, None: {**STAGES, **test}}[is_train]
    model_type = options.get("model_type")
    if not isinstance(model_type, str) or model_type not in known:
        if model_type is None and "runs" in options:
            raise OptionError(f"{name}: a chain of trainings; run 'python scripts/train_chain.py -opt {name}'")
        raise OptionError(f"{name}: {other_kind(options, name) or _unknown(model_type, list(known))}")
    try:
        return known[model_type].model_validate(options).model_dump(exclude_none=True)
    except ValidationError as error:
        lines = explain(error)
        raise OptionError(f"{name}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{name}:", *lines])) from error


def read_options(path: str | Path, is_train: bool | None, forced: list[str]) -> tuple[dict, str]:
    """Read, force and validate an option file; return the options and the file's text."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)  # `parse_yaml` refuses more
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"-opt {path}: cannot be read ({error})") from error
    options = parse_yaml(text, str(path))
    if isinstance(options, dict):
        force(options, forced)
    return validate(options, is_train, str(path)), text
