"""train.py with a loss that is NaN on rank 1 in its second step; prints what each rank ended with."""

import torch

import mrda_arch  # noqa: F401
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_model.base_model import StageModel
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_pipeline.training_loop import TrainingLoop
from mrda_utils import compat  # noqa: F401
from mrda_utils.distributed import gather
from mrda_utils.errors import run
from tests.model.conftest import ROOT

apply_gradients, run_loop = StageModel.apply_gradients, TrainingLoop.run


def spoil(model, *args):
    model.calls = getattr(model, "calls", 0) + 1
    if model.calls == 2 and model.opt["rank"] == 1:
        model.losses = {name: loss * torch.nan for name, loss in model.losses.items()}
    apply_gradients(model, *args)


def report(loop, first_step):
    run_loop(loop, first_step)
    weights = gather([p.detach() for p in loop.model.net_g.parameters()])
    equal = all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    print(f"skipped {loop.model.skipped_steps()}, weights equal {equal}", flush=True)  # noqa: T201


StageModel.apply_gradients, TrainingLoop.run = spoil, report
run(lambda: train_pipeline(ROOT))
