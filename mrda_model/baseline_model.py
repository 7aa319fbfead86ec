"""Stage baseline: the same network without degradation learning (MRDA_T1 and MRDA_S6 of paper Table V)."""

from __future__ import annotations

from basicsr.utils.registry import MODEL_REGISTRY

from mrda_model.base_model import StageModel


@MODEL_REGISTRY.register()
class MRDABaselineModel(StageModel):
    """Trains DEN and RDAN end to end with L_1; DEN sees the LR image, without guidance by MLN or teacher."""

    start_stage = "MRDABaselineModel"
