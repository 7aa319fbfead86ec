"""Losses that BasicSR lacks, in its LOSS_REGISTRY."""

from mrda_utils import compat  # noqa: F401  (first: BasicSR cannot be imported without it)

# isort: split
from mrda_loss.idr_distill_loss import IDRDistillLoss

__all__ = ["IDRDistillLoss"]
