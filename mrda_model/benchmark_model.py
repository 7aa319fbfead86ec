"""The methods that test.py compares."""

from __future__ import annotations

from collections.abc import Sequence

from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn

from mrda_data.sr_folder import SRFolder
from mrda_eval.complexity import LR_SIZE, Complexity, count_mult_adds, count_parameters, input_shapes
from mrda_eval.evaluation import Restorer
from mrda_model.adaptation import Adaptation
from mrda_model.frozen import build_frozen, freeze
from mrda_model.restorers import bicubic_restorer, folder_restorer, luma_restorer, network_restorer, teacher_oracle
from mrda_model.weights import load_network
from mrda_utils.errors import OptionError


@MODEL_REGISTRY.register()
class MRDATestModel(BaseModel):
    """Bicubic upsampling and, where the option file gives them, baselines, the student and the teacher as an oracle."""

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        path = opt["path"]
        self.restorers: dict[str, Restorer] = {"Bicubic": bicubic_restorer(opt["scale"])}
        self.complexity: dict[str, Complexity] = {}  # of the restorers that have a network
        self.oracles: set[str] = set()  # of the restorers, those that need the ground truth
        self.folders: set[str] = set()  # of the restorers, those that read what another program made
        for name, baseline in opt["baselines"].items():
            self._add_baseline(name, baseline)
        if "network_g" in opt:
            student = build_frozen(opt["network_g"], path["pretrain_network_g"], "MRDAStudentModel", self.device)
            self.restorers["Student"] = network_restorer(student)
            self.complexity["Student"] = _complexity(student, input_shapes(opt["network_g"], *LR_SIZE))
        if "network_t" in opt:
            teacher = build_frozen(opt["network_t"], path["pretrain_network_t"], "MRDATeacherModel", self.device)
            mln = build_frozen(opt["network_mln"], path["pretrain_network_mln"], "MLNMetaModel", self.device)
            self.restorers["Teacher (oracle)"] = teacher_oracle(teacher, mln, Adaptation(**opt["adaptation"]))
            self.complexity["Teacher (oracle)"] = _complexity(teacher, input_shapes(opt["network_t"], *LR_SIZE))
            self.oracles.add("Teacher (oracle)")

    def _add_baseline(self, name: str, baseline: dict) -> None:
        if "sr" in baseline:
            self.restorers[name] = folder_restorer(SRFolder(name, baseline["sr"]))
            self.folders.add(name)
            return
        network_opt = baseline["network"]
        net = build_network(network_opt)
        load_network(net, baseline["path"], baseline.get("param_key", "params_ema"))
        net = freeze(net.to(self.device))
        multiple = lr_multiple(network_opt)
        restore, channels = network_restorer(net, multiple), 3
        if network_opt.get("num_in_ch") == network_opt.get("num_out_ch") == 1:
            restore, channels = luma_restorer(restore, self.opt["scale"]), 1
        self.restorers[name] = restore
        try:
            sides = (side + -side % multiple for side in LR_SIZE)
            self.complexity[name] = _complexity(net, [(1, channels, *sides)])
        except RuntimeError as error:  # values that a constructor accepts and that do not go together
            reason = str(error).splitlines()[0]
            raise OptionError(f"baselines.{name}.network: does not run on an RGB image ({reason})") from error


def lr_multiple(network_opt: dict) -> int:
    """What the sides of an LR image must be multiples of: attention windows, and RRDBNet's pixel-unshuffling for x2."""
    unshuffle = 2 if network_opt["type"] == "RRDBNet" and network_opt["scale"] == 2 else 1
    return network_opt.get("window_size", unshuffle)


def _complexity(net: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Complexity:
    return Complexity(count_parameters(net), count_mult_adds(net, shapes))
