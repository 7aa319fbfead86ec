"""YAML of this project's files: safe, bounded, and strict about what is probably a mistake."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import yaml

from mrda_utils.errors import OptionError

MAX_BYTES = 100_000
"""Of an option file; ours have 2000. What a reader needs for a text grows faster than the text."""
_MAX_DIGITS = 40


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
                raise yaml.composer.ComposerError(None, None, f"key {key!r} appears twice", node.start_mark)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # a key that overrides one of << comes after it; PyYAML 6.0.4 merges the first of them further on
        own = {(key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key): (key, v) for key, v in node.value}
        node.value = list(own.values())

    def construct_yaml_int(self, node: yaml.Node) -> int:
        if len(self.construct_scalar(node)) > _MAX_DIGITS:
            problem = f"a number of more than {_MAX_DIGITS} digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_yaml_int(node)


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Characters of a node in which each alias is replaced by its content; nine lines can expand to 10^9."""
    if id(node) not in known:
        known[id(node)] = math.inf  # while inside itself
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
    """Parse YAML without executing anything; `name` is for the message of the OptionError."""
    if len(text) > MAX_BYTES:
        raise OptionError(f"{name}: {len(text)} characters; an option file has at most {MAX_BYTES}")
    try:
        return yaml.load(text, Loader=_Loader)
    except Exception as error:  # PyYAML has no error of its own for a date out of range, `!!bool x`, 1000 brackets
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error or type(error).__name__).replace("\n", " ")
        raise OptionError(f"{name}{where}: no valid YAML ({problem})") from error
