"""Option files: safe YAML, checked against the schema, one plain dict for BasicSR's builders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mrda_utils.errors import UserError
from mrda_utils.schema import STAGES, TestOptions, did_you_mean


class OptionError(UserError):
    """A wrong option file or command line."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        self.flatten_mapping(node)
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML without executing anything; `name` stands in the message of the OptionError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2024-13-45 is a date out of range: ValueError
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise OptionError(f"{name}{where}: no valid YAML ({getattr(error, 'problem', error)})") from error


def force(options: dict, entries: list[str]) -> None:
    """Apply `--force_yml section:key=value` entries in place; values are YAML, unknown keys fail in `validate`."""
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
        target[last] = parse_yaml(value, f"--force_yml {entry}")


def _where(location: tuple[int | str, ...]) -> str:
    tags = {
        "bicubic",
        "isotropic",
        "anisotropic",
        "realesrgan",
        "GTDataset",
        "BenchmarkDataset",
        "LQDataset",
        "PairedDataset",
        "MultiStepLR",
        "CosineAnnealingLR",
        "[key]",
    }
    return ".".join(str(part) for part in location if part not in tags)


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        where = _where(item["loc"])
        if item["type"] == "missing":
            lines.append(f"{where}: missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if item["type"] == "value_error" else f"{item['input']!r}: "
            lines.append(f"{where}{': ' if where else ''}{shown}{message}")
    return lines


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
        raise OptionError(f"{name}: model_type: {model_type!r}, {did_you_mean(str(model_type), list(known))}")
    try:
        return known[model_type].model_validate(options).model_dump(exclude_none=True)
    except ValidationError as error:
        lines = _explain(error)
        raise OptionError(f"{name}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{name}:", *lines])) from error


def read_options(path: str | Path, is_train: bool | None, forced: list[str]) -> tuple[dict, str]:
    """Read, force and validate an option file; return the options and the file's text."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"-opt {path}: cannot be read ({error})") from error
    options = parse_yaml(text, str(path))
    if isinstance(options, dict):
        force(options, forced)
    return validate(options, is_train, str(path)), text
