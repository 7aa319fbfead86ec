"""Option files: safe YAML, checked against the schema, one plain dict for BasicSR's builders."""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mrda_utils.errors import UserError
from mrda_utils.schema.fields import did_you_mean
from mrda_utils.schema.stages import STAGES, TestOptions


class OptionError(UserError):
    """A wrong option file or command line."""


MAX_BYTES = 100_000
"""Of an option file; ours have 2000. What a reader needs for a text grows faster than the text."""
_MAX_DIGITS = 40
_MAX_MISTAKES = 10  # told at once


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses a key given twice, and what would have no end."""

    def compose_document(self) -> yaml.Node:
        document = super().compose_document()
        if _written_out(document, {}) > MAX_BYTES:
            problem = f"aliases that stand for more than {MAX_BYTES} characters"
            raise yaml.composer.ComposerError(None, None, problem, document.start_mark)
        return document

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # as written: what << brings comes later, and may be overridden
        keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for (_, key), count in keys.items():
            if count > 1:
                raise yaml.composer.ComposerError(None, None, f"key {key!r} stands twice", node.start_mark)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # a key that overrides one brought by << stands behind it; PyYAML 6.0.4 merges the first of them further on
        own = {(key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key): (key, v) for key, v in node.value}
        node.value = list(own.values())

    def construct_yaml_int(self, node: yaml.Node) -> int:
        if len(self.construct_scalar(node)) > _MAX_DIGITS:
            problem = f"a number of more than {_MAX_DIGITS} digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_yaml_int(node)


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Characters of a node in which each alias is replaced by what it stands for; nine lines can stand for 10^9."""
    if id(node) not in known:
        known[id(node)] = math.inf  # what it is where it holds itself
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        inside = len(parts) if isinstance(node, yaml.ScalarNode) else sum(_written_out(part, known) for part in parts)
        known[id(node)] = 1 + inside
    return known[id(node)]


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML without executing anything; `name` stands in the message of the OptionError."""
    if len(text) > MAX_BYTES:
        raise OptionError(f"{name}: {len(text)} characters; an option file has at most {MAX_BYTES}")
    try:
        return yaml.load(text, Loader=_Loader)
    except Exception as error:  # PyYAML has no error of its own for a date out of range, `!!bool x`, 1000 brackets
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error or type(error).__name__).replace("\n", " ")
        raise OptionError(f"{name}{where}: no valid YAML ({problem})") from error


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
        "literal['auto']",
        "constrained-int",
        "[key]",
    }
    return ".".join(str(part) for part in location if part not in tags)


def _explain(error: ValidationError) -> list[str]:
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
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)  # `parse_yaml` refuses more
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"-opt {path}: cannot be read ({error})") from error
    options = parse_yaml(text, str(path))
    if isinstance(options, dict):
        force(options, forced)
    return validate(options, is_train, str(path)), text
