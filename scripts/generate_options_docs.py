"""Write options/schema.json, for editors, and docs/options.md, both from the schema that checks option files.

python scripts/generate_options_docs.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import json
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, Union

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

import mrda_loss  # noqa: F401  (these imports register what option files name)
import mrda_model  # noqa: F401
from mrda_options.stages import STAGES, TestOptions
from mrda_utils.arguments import argument_parser

ROOT = Path(__file__).resolve().parents[1]
STAGE_NAMES = {
    "MLNBicubicModel": "mln_bicubic",
    "MLNMetaModel": "mln_meta",
    "MRDATeacherModel": "teacher",
    "MRDAStudentModel": "student",
    "MRDABaselineModel": "baseline",
    "MRDAKernelModel": "kernel",
    "MRDATestModel": "test",
}

INTRO = """\
# Options

Every key of option files, and the stages that take it: *all*, or *training* for all but test. Editors
complete and check the same keys by `options/schema.json`. In a key, `*` is a name of your choice; *required* means:
where its section is there.

Do not edit: `python scripts/generate_options_docs.py` writes it from `mrda_options/`, which checks option files.
"""


class Key(NamedTuple):
    """A key of an option file; names are dotted, with `*` for what the user names."""

    section: str
    """Its section; empty for the top level."""
    kind: str
    """That section's `type`, where there are several."""
    name: str
    values: str
    default: str
    description: str


class _Generator(GenerateJsonSchema):
    """Pydantic's, without titles that repeat a key, and with mappings closed like sections."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        return {"additionalProperties": False, **super().dict_schema(schema)}


def json_schema() -> dict[str, Any]:
    """JSON schema of all option files; `model_type` chooses the applicable part."""
    options = Annotated[Union[(*STAGES.values(), TestOptions)], Field(discriminator="model_type")]
    schema = TypeAdapter(options).json_schema(schema_generator=_Generator)
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "MRDA option file", **schema}


def keys(schema: dict[str, Any], model_type: str) -> list[Key]:
    """Keys of the stage or test that `model_type` chooses, sections included; `schema` is that of `json_schema`."""
    root = {"$ref": schema["discriminator"]["mapping"][model_type]}
    return list(_keys(_resolved(root, schema["$defs"]), "", "required"))


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    """`node` with every reference replaced by what it refers to."""
    if isinstance(node, list):
        return [_resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        node = {**definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}
    return {key: _resolved(value, definitions) for key, value in node.items()}


def _keys(node: dict[str, Any], name: str, default: str, about: str = "") -> Iterator[Key]:
    """The section `node` and its keys, for each type that it may have; nothing where it is a plain value."""
    about = " ".join(filter(None, [about, node.get("description")]))
    for part in node.get("oneOf", node.get("anyOf", [])):
        yield from _keys(part, name, default, about)
    for part in node.get("patternProperties", {}).values():
        yield from _keys(part, f"{name}.*", default, about)
    if "properties" not in node:
        return
    kind = node["properties"].get("type", {}).get("const", "")
    if name:
        yield Key(name, kind, name, "section", default, about)
    for key, value in node["properties"].items():
        path = f"{name}.{key}" if name else key
        default = "required" if key in node.get("required", []) else _default(value)
        below = list(_keys(value, path, default))
        yield from below or [Key(name, kind, path, _values(value), default, value.get("description", ""))]


def _default(node: dict[str, Any]) -> str:
    value = node.get("default")
    return "optional" if value is None else f"`{json.dumps(value)}`"


def _values(node: dict[str, Any]) -> str:
    """Type and range of a plain value."""
    if "anyOf" in node:
        return " or ".join(_values(part) for part in node["anyOf"] if part != {"type": "null"})
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if node["type"] == "array":
        pair = node.get("minItems") == node.get("maxItems") == 2
        return f"[{_values(node['items'])}, {_values(node['items']) if pair else '...'}]"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "pattern": "like"}
    return " ".join([node["type"], *(f"{sign} `{node[bound]}`" for bound, sign in bounds.items() if bound in node)])


def _cell(text: str) -> str:
    """`text` for a table of Markdown, where a line's end or a bar, in code too, would end the cell."""
    return " ".join(text.split()).replace("|", r"\|")


def markdown(schema: dict[str, Any]) -> str:
    """docs/options.md: one table a section; keys that stages share are listed once."""
    stages_of: dict[Key, list[str]] = {}
    for model_type, stage in STAGE_NAMES.items():
        for key in keys(schema, model_type):
            stages_of.setdefault(key, []).append(stage)
    every = tuple(STAGE_NAMES.values())
    words = {every: "all", every[:-1]: "training"}
    tables: dict[str, dict[str, dict[str, list[str]]]] = {}  # of rows, by top-level key, heading and key
    for key, stages in stages_of.items():
        heading = f"`{key.section}`" if key.section else "Top level"
        heading += f" of type `{key.kind}`" if key.kind else ""
        taken_by = words.get(tuple(stages), ", ".join(stages))
        cells = [f"`{key.name}`", key.values, key.default, taken_by, key.description]
        row = f"| {' | '.join(_cell(text) for text in cells)} |"
        table = tables.setdefault(key.section.partition(".")[0], {}).setdefault(heading, {})
        table.setdefault(key.name, []).append(row)
    lines = [INTRO]
    for part in tables.values():
        for heading, rows in part.items():
            lines += [f"## {heading}", "", "| key | type | default | stages | meaning |", "|---|---|---|---|---|"]
            lines += [row for same_key in rows.values() for row in same_key] + [""]
    return "\n".join(lines)


def main() -> None:
    """Write both files; with --check, exit with 1 where one is not what would be written."""
    parser = argument_parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file is not current")
    check = parser.parse_args().check
    schema = json_schema()
    wanted = {
        ROOT / "options/schema.json": json.dumps(schema, indent=2) + "\n",
        ROOT / "docs/options.md": markdown(schema),
    }
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            if check:
                sys.exit(f"{path} is not current: run 'python scripts/generate_options_docs.py'")
            path.write_text(text, encoding="utf-8")
        print(f"{path}: {'current' if check else 'written'}")  # noqa: T201


if __name__ == "__main__":
    main()
