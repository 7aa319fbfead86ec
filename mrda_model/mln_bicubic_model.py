"""Stage mln_bicubic: pretrain MLN on bicubic downsampling (paper Alg. 1, line 2)."""

from __future__ import annotations

from collections.abc import Sequence

from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from mrda_model.adaptation import Shots, stack
from mrda_model.base_model import StageModel


@MODEL_REGISTRY.register()
class MLNBicubicModel(StageModel):
    """Trains the whole of MLN, upscaler included, with L_1; the other stages keep its upscaler as it is."""

    def compute_losses(self, tasks: Sequence[Shots], current_iter: int) -> dict[str, Tensor]:
        """Eq. (2)."""
        lq, gt = stack(tasks)
        return {"l_pix": self.cri_pix(self.run_network(lq).to(gt), gt)}
