"""A degradation of the user's choice: its representation (IDR) in the place of what DEN makes of the photograph."""

from __future__ import annotations

import torch
from torch import Tensor

from mrda_data.degradation import Task
from mrda_inference.known_degradations import KEYS, degraded, reference_crops
from mrda_inference.upscaler import Upscaler
from mrda_utils.errors import OptionError

RANGES = {"blur": (0.2, 4.0), "noise": (0.0, 50.0), "jpeg": (5.0, 99.0)}
"""What --as may name, and the range of values."""


def parse(text: str) -> Task:
    """Read `blur=2.4,jpeg=60`, or `clean`; capitals and spaces do not matter.

    Raises:
        OptionError: another kind, one named twice, no number, or one out of range.
    """
    task: Task = {}
    plain = text.strip().lower()
    for part in [] if plain == "clean" else plain.split(","):
        kind, _, value = (word.strip() for word in part.partition("="))
        if kind not in RANGES:
            raise OptionError(
                f"--as {text}: {kind!r} is not known; clean, or some of {', '.join(RANGES)}: blur=2.4,jpeg=60"
            )
        key, (low, high) = KEYS[kind], RANGES[kind]
        if key in task:
            raise OptionError(f"--as {text}: {kind} is named twice")
        try:
            task[key] = float(value)
        except ValueError:
            task[key] = float("nan")
        if not low <= task[key] <= high:
            raise OptionError(f"--as {text}: {kind} takes a number from {low:g} to {high:g}")
    return task


def with_degradation(upscaler: Upscaler, task: Task) -> Upscaler:
    """The same upscaler that takes every photograph for one under `task`, a task of `photo_degrade`.

    Its representation is the mean over the bundled photographs under that task.
    """
    scale = upscaler.net.upscale
    lq = degraded(reference_crops(scale), task, scale)
    with torch.inference_mode():
        idr = torch.cat([upscaler.encode(crop[None]) for crop in lq]).mean(0, keepdim=True)

    def encode(lq: Tensor) -> Tensor:
        return idr.expand(len(lq), -1)

    return upscaler._replace(encode=encode)
