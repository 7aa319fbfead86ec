"""Stage student: MRDA_S learns the teacher's representation from the LR image alone (paper Sec. III-D)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from mrda_model.adaptation import TaskBatch, stack
from mrda_model.base_model import StageModel
from mrda_model.frozen import build_frozen, demanded_degradation
from mrda_model.idr_target import IDRTarget
from mrda_model.precision import autocast


@MODEL_REGISTRY.register()
class MRDAStudentModel(StageModel):
    """Trains DEN_S and RDAN_S, RDAN starting from the teacher's weights; MLN and teacher are frozen."""

    start_stage = "MRDAStudentModel"

    def __init__(self, opt: dict) -> None:
        kd_opt = {**opt["train"]["kd_opt"]}
        self.kd_warmup_iter, self.kd_every = kd_opt.pop("warmup_iter"), kd_opt.pop("every")
        self.find_unused_parameters = self.kd_warmup_iter > 0  # RDAN rests meanwhile
        self.idrs: tuple[Tensor, Tensor] | None = None  # the student's and the teacher's, of the last distillation
        super().__init__(opt)
        self.cri_kd = build_loss(kd_opt)
        self.idr_target = IDRTarget(opt, self.device)

    def init_training_settings(self) -> None:
        """Start from the teacher's RDAN, unless the run starts from a student (`path.pretrain_network_g`)."""
        path, kind = self.opt["path"], demanded_degradation(self.opt)
        teacher_opt, teacher_path = self.opt["network_t"], path["pretrain_network_t"]
        teacher = build_frozen(teacher_opt, teacher_path, "MRDATeacherModel", self.device, kind)
        if "pretrain_network_g" not in path:
            self.get_bare_model(self.net_g).rdan.load_state_dict(teacher.rdan.state_dict())
        self.den_t = teacher.den  # all that distillation needs
        super().init_training_settings()

    def compute_losses(self, tasks: Sequence[TaskBatch], current_iter: int) -> dict[str, Tensor]:
        """Eq. (6), or (7) with a discriminator; during the warm-up DEN alone trains, by distillation.

        With `train.idr_per: task` an image is restored by what DEN sees in another one of its task, each iteration the
        next one (in its turn itself), and DEN learns the mean of the teacher's representations of the task.
        """
        lq, gt = stack(tasks)
        seen = None  # the image itself
        if self.opt["train"]["idr_per"] == "task":
            seen = torch.cat([task.lq.roll(current_iter, 0) for task in tasks])
        warms_up = current_iter <= self.kd_warmup_iter
        distils = warms_up or current_iter % self.kd_every == 0
        target = self.teacher_idr(tasks) if distils else None  # before the student's graph takes memory
        sr, idr = self.run_network(lq, seen, return_idr=True)
        losses = {}
        if distils:
            self.idrs = idr.detach().to(gt), target.to(gt)
            losses = self.cri_kd(idr.to(gt), target.to(gt))._asdict()
        return losses if warms_up else losses | self.restoration_losses(sr, gt)

    @torch.no_grad()
    def teacher_idr(self, tasks: Sequence[TaskBatch]) -> Tensor:
        """Return the teacher's representations (N, 4 w), with `train.idr_per: task` the mean of each task."""
        features = self.idr_target(tasks)  # in the precision of `adaptation.dtype`
        with autocast(self.device, self.opt["train"]["amp"]):
            target = self.den_t(features)
        if self.opt["train"]["idr_per"] == "task":
            target = torch.cat([part.mean(0).expand_as(part) for part in target.split(len(tasks[0].lq))])
        return target

    def watch(self) -> dict[str, Tensor]:
        """Also the distance of the student's representations from the teacher's, over the norm of these."""
        if self.idrs is None:  # nothing was distilled yet
            return super().watch()
        found, target = self.idrs
        return {**super().watch(), "idr_distance": ((found - target).norm(dim=1) / target.norm(dim=1)).mean()}
