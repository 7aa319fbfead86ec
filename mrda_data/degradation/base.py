"""The interface that every degradation has."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from mrda_utils.fields import Section

Task = dict[str, float | str]
"""One draw of a degradation's parameters: plain numbers, flags and words that can be logged, saved and replayed."""


class Degradation(Protocol):
    """Draws tasks and applies them.

    A task is what MLN adapts to: all of its images share the parameters, noise differs from image to image.
    """

    scale: int

    def sample(self, generator: torch.Generator) -> Task:
        """Draw one task's parameters; equal generator state gives an equal task."""

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """Degrade all images of one task.

        Args:
            gt: (N, 3, H, W) float RGB in [0, 1]; H and W multiples of `scale`.
            task: what `sample` returned.
            generator: CPU generator; the noise, drawn on the device of `gt`, depends on its state.

        Returns:
            lq (N, 3, H / scale, W / scale) on the 1/255 grid of [0, 1], dtype and device of `gt`.

        Raises:
            ValueError: H or W no multiple of `scale`, or too small for the blur.
        """


T = TypeVar("T", bound=type[Degradation])


class Kind(NamedTuple):
    """A registered degradation: the keys of its section of an option file, and the class that takes those options."""

    options: type[Section]
    degradation: type[Degradation]


KINDS: dict[str, Kind] = {}
"""By `type`, the only value of the options' field of this name."""


def register(options: type[Section]) -> Callable[[T], T]:
    """Class decorator: option files may name this degradation.

    Args:
        options: its section; its fields except `type` are, with `scale`, the constructor's arguments.
    """

    def enter(degradation: T) -> T:
        (kind,) = get_args(options.model_fields["type"].annotation)
        KINDS[kind] = Kind(options, degradation)
        return degradation

    return enter


def build_degradation(opt: dict, scale: int) -> Degradation:
    """Build the degradation of an option file's `degradation` section: its `type` and that class's arguments."""
    arguments = {key: value for key, value in opt.items() if key != "type"}
    return KINDS[opt["type"]].degradation(scale=scale, **arguments)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw a number from [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def chance(generator: torch.Generator, probability: float) -> bool:
    """Draw True with this probability."""
    return uniform(generator, 0, 1) < probability


def choice(generator: torch.Generator, values: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """Draw one of `values`, by their weights."""
    edges = list(accumulate(weights or [1] * len(values)))
    return values[bisect(edges, uniform(generator, 0, edges[-1]))]


def check_multiple(gt: Tensor, scale: int) -> None:
    """Raise ValueError unless height and width of `gt` are multiples of `scale`."""
    height, width = gt.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"gt of {height}x{width}: height and width must be multiples of the scale {scale}")


def quantise(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to 8 bits, as saving the LR image would."""
    return (image.clamp(0, 1) * 255).round() / 255
