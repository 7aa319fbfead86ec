"""Several degradations in one training: each task is one of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le, Len
from pydantic import Field, PlainValidator, WithJsonSchema, create_model
from torch import Tensor

from mrda_data.degradation.base import KINDS, Task, build_degradation, choice, register
from mrda_utils.fields import Section, did_you_mean


def _component(value: Any) -> dict[str, Any]:
    """A weight, and a section of the degradation named by `type`, checked."""
    kind = value.get("type") if isinstance(value, dict) else None
    known = [name for name in KINDS if name != "mixture"]
    if kind not in known:
        raise ValueError(f"type: {kind!r} cannot be mixed, {did_you_mean(str(kind), known)}")
    weight = (Annotated[float, Gt(0), Le(1e6)], Field(description="how often, relative to the others"))
    return create_model("Component", __base__=KINDS[kind].options, weight=weight).model_validate(value).model_dump()


Component = Annotated[
    dict[str, Any],
    PlainValidator(_component),
    WithJsonSchema(
        {
            "type": "object",
            "required": ["type", "weight"],
            "properties": {
                "type": {"type": "string"},
                "weight": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e6},
            },
        }
    ),
]


class Mixture(Section):
    """One of several degradations a task, drawn by their weights."""

    type: Literal["mixture"] = Field(description="kind of degradation")
    of: Annotated[list[Component], Len(2)] = Field(
        description="the degradations: `weight`, and the options of each `type`"
    )

    @property
    def kernel_size(self) -> int:
        """Pixels of the largest blur kernel of fixed size."""
        return max(component.get("kernel_size", 1) for component in self.of)


@register(Mixture)
class MixtureDegradation:
    """Draws one of its degradations, then that one's parameters; `component` of a task is its number, from 0.

    Args:
        scale: downsampling factor.
        of: options of each degradation, and its `weight`.
    """

    def __init__(self, *, scale: int, of: list[dict[str, Any]]) -> None:
        self.scale = scale
        self.weights = [component["weight"] for component in of]
        options = [{key: value for key, value in component.items() if key != "weight"} for component in of]
        self.components = [build_degradation(opt, scale) for opt in options]

    def sample(self, generator: torch.Generator) -> Task:
        """Draw a component and one task of it."""
        number = choice(generator, range(len(self.components)), self.weights)
        return {"component": number} | self.components[number].sample(generator)

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """See `Degradation.apply`."""
        return self.components[task["component"]].apply(gt, task, generator)
