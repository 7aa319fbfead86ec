"""One metric of an option file: made once, and used by everything that measures, compares or prints."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from mrda_utils.errors import UserError

F = TypeVar("F", bound=Callable[..., float])

LARGEST_TRIAL = 512  # pixels; a metric that has a value on an image of this side has one on larger ones


class MetricError(UserError):
    """A metric that has no value on an image."""


class Kind(NamedTuple):
    """What the signature of a registered metric does not say."""

    higher_is_better: bool
    digits: int
    """Behind the point, when a value is shown."""
    unit: str = ""
    weights: Callable[[dict[str, Any]], Path] | None = None
    """The file that it needs, from its options; raises UserError where it is missing or not the right one."""


KINDS = {
    "calculate_psnr": Kind(higher_is_better=True, digits=2, unit=" dB"),
    "calculate_ssim": Kind(higher_is_better=True, digits=4),
    "calculate_niqe": Kind(higher_is_better=False, digits=2),
}
"""By registered name: BasicSR's, and what `register` adds."""


def register(kind: Kind) -> Callable[[F], F]:
    """Function decorator: option files may name this metric; its arguments are `img`, perhaps `img2`, and options."""

    def enter(function: F) -> F:
        METRIC_REGISTRY.register(function)
        KINDS[function.__name__] = kind
        return function

    return enter


@dataclass(frozen=True)
class Metric:
    """A metric by the name that reports show, see `metrics_of`."""

    name: str
    type: str
    """Registered name."""
    options: dict[str, Any]
    """Further arguments of the registered function."""

    @property
    def kind(self) -> Kind:
        """What is known of all metrics of this type."""
        return KINDS[self.type]

    @property
    def format(self) -> str:
        """Format of its values, as for `format`."""
        return f".{self.kind.digits}f"

    @property
    def needs_gt(self) -> bool:
        """Whether it compares with the ground truth."""
        return "img2" in inspect.signature(METRIC_REGISTRY.get(self.type)).parameters

    def is_better(self, value: float, other: float) -> bool:
        """Whether `value` is the better one."""
        return value > other if self.kind.higher_is_better else value < other

    def weights_file(self) -> Path | None:
        """The file of weights that it needs, if any.

        Raises:
            UserError: it is missing, or not the right one.
        """
        return self.kind.weights(self.options) if self.kind.weights else None

    def is_published_for(self, scale: int) -> bool:
        """Whether published tables measure in this way: PSNR or SSIM on Y, a border of `scale` pixels cropped."""
        on_y = bool(self.options.get("test_y_channel")) and self.options["crop_border"] == scale
        return on_y and self.type in ("calculate_psnr", "calculate_ssim")

    def measure(self, image: np.ndarray, gt: np.ndarray | None, where: str) -> float:
        """Its value on (H, W, 3) uint8 BGR images.

        Raises:
            MetricError: there is none, as on images that are too small or flat; the message begins with `where`.
        """
        images = {"img": image} | ({"img2": gt} if self.needs_gt else {})
        try:
            value = float(calculate_metric(images, {"type": self.type, **self.options}))
        except (ArithmeticError, cv2.error, RuntimeError, ValueError) as error:  # how BasicSR's metrics fail
            if isinstance(error, UserError):
                raise
            raise MetricError(f"{where}: no {self.name} ({error}); is the image too small for it, or flat?") from error
        if math.isnan(value):
            raise MetricError(f"{where}: no {self.name}; is the image too small for it, or flat?")
        return value

    def check_sizes(self, sizes: Iterable[tuple[int, int]], where: str) -> None:
        """Try it on noise of the smallest of these sizes (H, W).

        Raises:
            MetricError: it has no value there.
        """
        sizes = {tuple(min(side, LARGEST_TRIAL) for side in size) for size in sizes}
        for height, width in {min(sizes, key=min), min(sizes, key=math.prod)}:
            noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
            try:
                self.measure(*noise, where)
            except MetricError as error:
                reason = f"it has no value on images of {height}x{width}, as in {where}"
                raise MetricError(f"val.metrics.{self.name}: {reason}; use larger ones, or leave it out") from error


def metrics_of(options: dict[str, dict[str, Any]], complete: bool = False) -> list[Metric]:
    """The metrics of an option file's `val.metrics`, name to options.

    Args:
        options: see above.
        complete: see that the weights they need are there.

    Raises:
        UserError: `better` contradicts what the metric is, or with `complete`, weights are missing.
    """
    metrics = []
    for name, opt in options.items():
        metric = Metric(name, opt["type"], {key: value for key, value in opt.items() if key not in ("type", "better")})
        direction = "higher" if metric.kind.higher_is_better else "lower"
        if opt.get("better", direction) != direction:
            raise UserError(f"val.metrics.{name}.better: {opt['better']!r}, but {direction} is better; leave it out")
        try:
            _ = complete and metric.weights_file()
        except UserError as error:
            raise UserError(f"val.metrics.{name}: {error}") from error
        metrics.append(metric)
    return metrics
