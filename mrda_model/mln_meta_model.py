"""Stage mln_meta: meta-learn MLN's body over degradations (paper Alg. 1)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from mrda_eval.evaluation import Restorer
from mrda_model.adaptation import Adaptation, TaskBatch, adaptation_errors, meta_gradient
from mrda_model.base_model import StageModel
from mrda_model.restorers import mln_oracle


@MODEL_REGISTRY.register()
class MLNMetaModel(StageModel):
    """Each task's images are split into support, for the inner steps, and query, for the outer loss."""

    start_stage = "MLNBicubicModel", "MLNMetaModel"

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Freeze the upscaler (but for paper Table VI).

        There is no DDP wrapper: its hooks never see a functional call, so the step reduces by itself.
        """
        net.upscaler.requires_grad_(not self.opt["adaptation"]["freeze_upscaler"])
        return net.to(self.device)

    def optimize_parameters(self, current_iter: int) -> None:
        """One outer step: the mean over tasks of the query loss's gradient (Alg. 1, lines 6-14)."""
        meta_opt, adaptation = self.opt["train"]["meta"], Adaptation(**self.opt["adaptation"])
        k = meta_opt["num_support"]
        losses, total = [], None
        for lq, gt in self.tasks:  # one at a time: accumulation adds tasks and no memory
            support, query = TaskBatch(lq[:k], gt[:k]), TaskBatch(lq[k:], gt[k:])
            loss, grads = meta_gradient(
                self.net_g, support, query, adaptation, self.cri_pix, first_order=meta_opt["first_order"]
            )
            losses.append(loss)
            total = grads if total is None else torch._foreach_add(total, grads)
        mean = torch._foreach_div(total, len(self.tasks))
        for parameter, grad in zip(self.trained, mean, strict=True):
            # a copy in the weight's layout: autograd.grad returns that of the activations
            parameter.grad = torch.empty_like(parameter).copy_(grad)
            if self.opt["dist"]:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.opt["world_size"]
        self.losses = {"l_meta": torch.stack(losses).mean()}
        self.apply_gradients()

    def watch(self) -> dict[str, Tensor]:
        """Also MLN's error on the last batch's first support images, before and after adapting to them."""
        k = self.opt["train"]["meta"]["num_support"]
        lq, gt = self.tasks[0]
        before, after = adaptation_errors(self.net_g, lq[:k], gt[:k], Adaptation(**self.opt["adaptation"]))
        return {**super().watch(), "adaptation_l1_before": before, "adaptation_l1_after": after}

    def restorer(self) -> Restorer:
        """Oracle: MLN adapts on the image that it restores."""
        return mln_oracle(self.trained_network(), Adaptation(**self.opt["adaptation"]))
