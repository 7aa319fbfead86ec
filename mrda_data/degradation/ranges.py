"""Types of the options of degradations: ranges to draw from, probabilities, kernel sizes."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator


def _ordered(pair: list[float]) -> list[float]:
    if not 0 <= pair[0] <= pair[1]:
        raise ValueError(f"{pair} is no range: it needs 0 <= low <= high")
    return pair


def _around_one(pair: list[float]) -> list[float]:
    if not pair[0] <= 1 <= pair[1]:
        raise ValueError(f"{pair} must contain 1")
    return pair


def _whole(probabilities: list[float]) -> list[float]:
    if not math.isclose(sum(probabilities), 1, abs_tol=1e-6):
        raise ValueError(f"{probabilities} must sum to 1, not {sum(probabilities):g}")
    return probabilities


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"{value} is even")
    return value


Range = Annotated[list[Annotated[float, Le(1000)]], Len(2, 2), AfterValidator(_ordered)]
PositiveRange = Annotated[list[Annotated[float, Ge(0.001), Le(1000)]], Len(2, 2), AfterValidator(_ordered)]
RangeAroundOne = Annotated[PositiveRange, AfterValidator(_around_one)]
FactorRange = Annotated[
    list[Annotated[float, Gt(0), Le(16)]], Len(2, 2), AfterValidator(_ordered), AfterValidator(_around_one)
]
QualityRange = Annotated[list[Annotated[float, Ge(1), Lt(100)]], Len(2, 2), AfterValidator(_ordered)]
Probability = Annotated[float, Ge(0), Le(1)]
Probabilities = Annotated[list[Probability], AfterValidator(_whole)]
KernelSize = Annotated[int, Ge(3), Le(255), AfterValidator(_odd)]
LargestKernel = Annotated[int, Ge(7), Le(255), AfterValidator(_odd)]
