"""Test protocols: named lists of kernels and noise levels, from protocols.yml."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Len
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mrda_data.degradation import RealESRGANDegradation, Task
from mrda_utils.errors import OptionError
from mrda_utils.fields import Section
from mrda_utils.seeding import torch_generator
from mrda_utils.yaml_text import parse_yaml

REALESRGAN_CASES = 8


class Kernel(NamedTuple):
    """A Gaussian kernel; both standard deviations are 0 for no blur."""

    sigma_x: float
    sigma_y: float
    angle: float
    """Degrees."""


def _kernel(value: Any) -> Kernel:
    values = value if isinstance(value, list) else [value, value, 0]
    if len(values) != 3 or not all(isinstance(number, int | float) for number in values):
        raise ValueError(f"{value!r} is neither a width nor [sigma_x, sigma_y, angle]")
    if min(values[:2]) < 0 or (isinstance(value, list) and 0 in value[:2]):
        raise ValueError(f"{value!r}: standard deviations are positive; a width may be 0, for no blur")
    return Kernel(*map(float, values))


def _is_isotropic(kernels: list[Kernel]) -> bool:
    return all(kernel.sigma_x == kernel.sigma_y for kernel in kernels)


def _nameable(kernels: list[Kernel]) -> list[Kernel]:
    if _is_isotropic(kernels):
        _distinct([round(kernel.sigma_x, 2) for kernel in kernels])  # as labels write it
    return kernels


def _of_each_scale(kernels: Any) -> Any:
    return dict.fromkeys((2, 3, 4), kernels) if isinstance(kernels, list) else kernels


def _distinct(values: list[float]) -> list[float]:
    if len(set(values)) < len(values):
        raise ValueError(f"{values}: one appears twice")
    return values


Levels = Annotated[list[Annotated[float, Ge(0)]], Len(1), AfterValidator(_distinct)]
Kernels = Annotated[list[Annotated[Kernel, PlainValidator(_kernel)]], Len(1), AfterValidator(_nameable)]


class Protocol(Section):
    """One entry of protocols.yml, which says what the keys mean."""

    source: str
    note: str = ""
    table: Literal["means", "kernels"] = "means"
    noise_sigma_255: Levels = Field([0.0])
    kernels: Annotated[dict[Literal[2, 3, 4], Kernels], BeforeValidator(_of_each_scale)] = Field({})
    photos: dict[str, dict[str, float | str | bool] | None] = Field({})

    @model_validator(mode="after")
    def _one_list(self) -> Protocol:
        if bool(self.kernels) == bool(self.photos):
            raise ValueError("kernels, photos: one of them")
        return self


class Case(NamedTuple):
    """One degradation of a protocol."""

    label: str
    """Of kernel and noise, for files and rows; no two of a protocol have the same."""
    kernel: str
    """Of the kernel alone."""
    task: Task | None
    """None draws one for each image."""
    kind: Literal["classic", "photo", "realesrgan"] = "classic"
    """Of degradation."""
    noise_sigma_255: float = 0.0
    """The protocol's noise level."""


def read_protocols(path: Path) -> dict[str, Protocol]:
    """Read a file like protocols.yml.

    Raises:
        OptionError: a mistake in it, named.
    """
    try:
        return TypeAdapter(dict[str, Protocol]).validate_python(parse_yaml(path.read_text(encoding="utf-8"), str(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OptionError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error


PROTOCOLS = read_protocols(Path(__file__).with_name("protocols.yml"))


def _realesrgan_cases(scale: int) -> list[Case]:
    """The first draws of Real-ESRGAN's degradation with its published values, always the same ones."""
    degradation = RealESRGANDegradation(scale=scale)
    tasks = [degradation.sample(torch_generator(0, "realesrgan protocol", n)) for n in range(REALESRGAN_CASES)]
    return [Case(f"draw{n}", f"draw{n}", task, "realesrgan") for n, task in enumerate(tasks, 1)]


def _photo_cases(photos: dict[str, Task | None]) -> list[Case]:
    return [Case(name, name, task, "realesrgan" if task is None else "photo") for name, task in photos.items()]


def protocol_cases(protocol: str, scale: int) -> list[Case]:
    """Every kernel of a protocol at each of its noise levels, one level after the other; or its photographs or draws.

    Raises:
        OptionError: the protocol has no kernels for this scale.
    """
    if protocol == "realesrgan":
        return _realesrgan_cases(scale)
    if PROTOCOLS[protocol].photos:
        return _photo_cases(PROTOCOLS[protocol].photos)
    kernels = PROTOCOLS[protocol].kernels.get(scale)
    if kernels is None:
        raise OptionError(f"protocol: {protocol!r} has no kernels for scale {scale}")
    cases = []
    for level in PROTOCOLS[protocol].noise_sigma_255:
        for number, (sigma_x, sigma_y, angle) in enumerate(kernels, 1):
            if _is_isotropic(kernels):
                name = f"sigma{sigma_x:.2f}" if sigma_x else "bicubic"
            else:  # numbered: a list may contain a kernel twice
                name = f"{number}_{sigma_x:g}x{sigma_y:g}_{angle:g}deg"
            theta = math.radians(angle)
            task = {"sigma_x": sigma_x, "sigma_y": sigma_y, "theta": theta, "noise_sigma_255": level}
            label = name + (f"_noise{level:g}" if level else "")
            cases.append(Case(label, name, task, noise_sigma_255=level))
    return cases
