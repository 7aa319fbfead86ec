"""Stage mln_bicubic: pretrain MLN on bicubic downsampling (paper Alg. 1, line 2)."""

from __future__ import annotations

from basicsr.utils.registry import MODEL_REGISTRY

from mrda_model.base_model import StageModel


@MODEL_REGISTRY.register()
class MLNBicubicModel(StageModel):
    """Trains the whole of MLN, upscaler included, with L_1; the other stages keep its upscaler as it is."""
