"""Stage baseline: the same network without degradation learning (MRDA_T1 and MRDA_S6 of paper Table V)."""

from __future__ import annotations

from collections.abc import Sequence

from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from mrda_model.adaptation import Shots, stack
from mrda_model.base_model import StageModel


@MODEL_REGISTRY.register()
class MRDABaselineModel(StageModel):
    """Trains DEN and RDAN end to end with L_1; DEN looks at the LR image and no MLN or teacher tells it what to see."""

    start_stage = "MRDABaselineModel"

    def compute_losses(self, tasks: Sequence[Shots], current_iter: int) -> dict[str, Tensor]:
        """Eq. (2)."""
        lq, gt = stack(tasks)
        return {"l_pix": self.cri_pix(self.run_network(lq).to(gt), gt)}
