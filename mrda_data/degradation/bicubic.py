"""Plain bicubic downsampling, MLN's first training stage (paper Alg. 1, line 2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mrda_data.degradation.base import Task, check_multiple, quantise, register
from mrda_utils.fields import Section
from mrda_utils.resize import imresize


class Bicubic(Section):
    """MATLAB bicubic downsampling alone."""

    type: Literal["bicubic"] = Field(description="kind of degradation")


@register(Bicubic)
class BicubicDegradation:
    """lq = quantise(gt downsampled by MATLAB's antialiased bicubic); there is nothing to draw."""

    def __init__(self, *, scale: int) -> None:
        self.scale = scale

    def sample(self, generator: torch.Generator) -> Task:
        """Return the only task there is."""
        return {}

    def apply(self, gt: Tensor, task: Task, generator: torch.Generator) -> Tensor:
        """See `Degradation.apply`."""
        check_multiple(gt, self.scale)
        return quantise(imresize(gt, 1 / self.scale))
