"""How much a mean over images can be trusted: spread over images, and confidence of the difference of two methods."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from mrda_eval.evaluation import Row, means

RESAMPLES = 9999
CONFIDENCE = 0.95


class Spread(NamedTuple):
    """One method on one data set; images count alike, each with the mean over its kernels."""

    dataset: str
    method: str
    metric: str
    images: int
    std: float
    """Over images, ddof 1."""
    reference: str
    difference: float | None
    """Mean of the reference method minus that of this one; None for the reference itself."""
    low: float | None
    """The difference's confidence interval; paired, by bootstrap over images."""
    high: float | None


def spreads(rows: list[Row], reference: str) -> list[Spread]:
    """Spread of each method over the images of each data set, where there are two or more.

    Args:
        rows: what was measured; every method on the same images.
        reference: method that the others are compared with.
    """
    by_image: dict[tuple[str, str, str], dict[str, float]] = {}
    for (dataset, method, metric, image), value in means(rows, "dataset", "method", "metric", "image").items():
        by_image.setdefault((dataset, method, metric), {})[image] = value
    found = []
    for (dataset, method, metric), values in by_image.items():
        own = np.array(list(values.values()))
        if len(own) < 2 or not np.isfinite(own).all():
            continue
        differences = None
        other = by_image.get((dataset, reference, metric), {})
        if method != reference and other.keys() == values.keys():
            differences = np.array([other[image] - value for image, value in values.items()])
        found.append(
            Spread(dataset, method, metric, len(own), float(own.std(ddof=1)), reference, *_interval(differences))
        )
    return found


def _interval(differences: np.ndarray | None) -> tuple[float | None, float | None, float | None]:
    """Mean of paired differences and its interval of `CONFIDENCE`."""
    if differences is None or not np.isfinite(differences).all():
        return None, None, None
    found = bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(differences.mean()), *map(float, found.confidence_interval)
