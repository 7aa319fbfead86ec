"""Images, training crops, test protocols and degradations; the data sets are in BasicSR's DATASET_REGISTRY."""

from mrda_utils import compat  # noqa: F401  (first: BasicSR cannot be imported without it)

# isort: split
from mrda_data.benchmark_dataset import BenchmarkDataset
from mrda_data.gt_dataset import GTDataset
from mrda_data.lq_dataset import LQDataset
from mrda_data.paired_dataset import PairedDataset

__all__ = ["BenchmarkDataset", "GTDataset", "LQDataset", "PairedDataset"]
