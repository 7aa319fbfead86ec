"""The methods that test.py compares."""

from __future__ import annotations

from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import MODEL_REGISTRY

from mrda_model.adaptation import Adaptation
from mrda_model.base_model import build_frozen
from mrda_model.evaluation import Restorer, bicubic_restorer, network_restorer, teacher_oracle


@MODEL_REGISTRY.register()
class MRDATestModel(BaseModel):
    """Bicubic upsampling and, where the option file gives them, the student and the teacher as an oracle."""

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        path = opt["path"]
        self.restorers: dict[str, Restorer] = {"Bicubic": bicubic_restorer(opt["scale"])}
        self.oracles: set[str] = set()  # of the restorers, those that need the ground truth
        if "network_g" in opt:
            student = build_frozen(opt["network_g"], path["pretrain_network_g"], "MRDAStudentModel", self.device)
            self.restorers["Student"] = network_restorer(student)
        if "network_t" in opt:
            teacher = build_frozen(opt["network_t"], path["pretrain_network_t"], "MRDATeacherModel", self.device)
            mln = build_frozen(opt["network_mln"], path["pretrain_network_mln"], "MLNMetaModel", self.device)
            self.restorers["Teacher (oracle)"] = teacher_oracle(teacher, mln, Adaptation(**opt["adaptation"]))
            self.oracles.add("Teacher (oracle)")
