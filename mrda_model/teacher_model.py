"""Stage teacher: MRDA_T guided by MLN adapted on the ground truth (paper Alg. 2)."""

from __future__ import annotations

from collections.abc import Sequence

from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from mrda_eval.evaluation import Restorer
from mrda_model.adaptation import TaskBatch, adaptation_errors, stack
from mrda_model.base_model import StageModel
from mrda_model.idr_target import IDRTarget
from mrda_model.restorers import teacher_oracle


@MODEL_REGISTRY.register()
class MRDATeacherModel(StageModel):
    """Trains DEN_T and RDAN_T; MLN is frozen and adapts to each task."""

    start_stage = "MRDATeacherModel"

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        self.idr_target = IDRTarget(opt, self.device)

    def compute_losses(self, tasks: Sequence[TaskBatch], current_iter: int) -> dict[str, Tensor]:
        """Eq. (2), or (3) with a discriminator (Alg. 2, lines 4-11)."""
        lq, gt = stack(tasks)
        return self.restoration_losses(self.run_network(lq, self.idr_target(tasks)), gt)

    def watch(self) -> dict[str, Tensor]:
        """Also MLN's error on the last batch's first task, before and after adapting to it."""
        before, after = adaptation_errors(self.idr_target.mln, *self.tasks[0], self.idr_target.adaptation)
        return {**super().watch(), "adaptation_l1_before": before, "adaptation_l1_after": after}

    def restorer(self) -> Restorer:
        """Oracle: MLN adapts on the ground truth of the image."""
        return teacher_oracle(self.trained_network(), self.idr_target.mln, self.idr_target.adaptation)
