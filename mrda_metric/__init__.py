"""Metrics that BasicSR lacks, in its METRIC_REGISTRY."""

from mrda_utils import compat  # noqa: F401  (first: BasicSR cannot be imported without it)

# isort: split
from mrda_metric.lpips import calculate_lpips
from mrda_metric.metric import Metric, MetricError, metrics_of

__all__ = ["Metric", "MetricError", "calculate_lpips", "metrics_of"]
