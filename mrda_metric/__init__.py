"""What a test measures: `Metric`, made of an option, and metrics that BasicSR lacks, in its METRIC_REGISTRY."""

from mrda_utils import compat  # noqa: F401  (first: BasicSR cannot be imported without it)

# isort: split
from mrda_metric.lpips import calculate_lpips
from mrda_metric.metric import Kind, Metric, MetricError, metrics_of, register

__all__ = ["Kind", "Metric", "MetricError", "calculate_lpips", "metrics_of", "register"]
