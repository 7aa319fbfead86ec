"""Distillation of the implicit degradation representation (paper Sec. III-D)."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn


class IDRDistillTerms(NamedTuple):
    """Both terms, already weighted."""

    l_kl: Tensor
    l_abs: Tensor


@LOSS_REGISTRY.register()
class IDRDistillLoss(nn.Module):
    """lambda_kl L_kl + lambda_abs L_abs between a student's and a teacher's representation (paper Eq. 4 and 5).

    Args:
        kl_weight: lambda_kl.
        abs_weight: lambda_abs.
        temperature: both representations are divided by it before the softmax; not in the paper (1), 0.15 in the
            published code.
    """

    def __init__(self, *, kl_weight: float = 1.0, abs_weight: float = 0.01, temperature: float = 0.15) -> None:
        super().__init__()
        self.kl_weight, self.abs_weight, self.temperature = kl_weight, abs_weight, temperature

    def forward(self, idr: Tensor, target: Tensor) -> IDRDistillTerms:
        """Compare the student's `idr` (N, 4C) with the teacher's `target` (N, 4C): means over samples and channels."""
        log_student = F.log_softmax(idr / self.temperature, dim=1)
        log_teacher = F.log_softmax(target / self.temperature, dim=1)
        l_kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).mean()
        return IDRDistillTerms(self.kl_weight * l_kl, self.abs_weight * F.l1_loss(idr, target))
