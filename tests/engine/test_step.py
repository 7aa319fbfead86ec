"""What speed and memory options do to a step."""

from __future__ import annotations

import random

import pytest
import torch
from basicsr.models.base_model import BaseModel
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._python_dispatch import TorchDispatchMode

from mrda_model import training_state
from mrda_utils.errors import UserError
from tests.engine.conftest import finish, run_folder, same_weights
from tests.model.conftest import STAGES, stage_options, train
from tests.model.test_stages import build


def one_step(stage, chain, tmp_path, **changes):
    """Weights, gradients and losses after one step."""
    torch.manual_seed(0)
    model, batch = build(stage, chain, tmp_path, **changes)
    model.feed_data(batch)
    model.update_learning_rate(1)
    model.optimize_parameters(1)
    bare = model.get_bare_model(model.net_g)
    grads = {name: p.grad for name, p in bare.named_parameters() if p.grad is not None}
    return bare.state_dict(), grads, model.get_current_log()


def assert_close(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(torch.as_tensor(a[name]), torch.as_tensor(b[name]), **tolerance)


@pytest.mark.parametrize("stage", STAGES)
def test_accumulating_two_tasks_equals_reading_both_at_once(chain, tmp_path, stage):
    whole = one_step(stage, chain, tmp_path)
    changes = {"datasets__train__tasks_per_gpu": 1, "train__accumulation_steps": 2}
    assert_close(one_step(stage, chain, tmp_path, **changes), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
def test_clipping_scales_the_whole_gradient_to_the_norm(chain, tmp_path, stage):
    _, free, _ = one_step(stage, chain, tmp_path)
    norm = torch.stack([grad.square().sum() for grad in free.values()]).sum().sqrt()
    _, clipped, _ = one_step(stage, chain, tmp_path, train__clip_grad_norm=float(norm) / 10)
    for name in free:
        torch.testing.assert_close(clipped[name], free[name] / 10, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("stage", ["mln_bicubic", "teacher", "student"])
def test_bf16_autocast_changes_rounding_alone(bfloat16, chain, tmp_path, stage):
    weights, grads, losses = one_step(stage, chain, tmp_path)
    weights_amp, grads_amp, losses_amp = one_step(stage, chain, tmp_path, train__amp="bf16")
    assert losses_amp != losses  # it did something
    for name, value in losses.items():
        assert losses_amp[name] == pytest.approx(value, rel=0.05)
    assert all(tensor.dtype == weights[name].dtype for name, tensor in weights_amp.items())
    a, b = (torch.cat([g.flatten() for g in found.values()]) for found in (grads, grads_amp))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.98


@pytest.mark.parametrize("stage", ["mln_bicubic", "teacher", "student"])
def test_channels_last_changes_nothing_but_rounding(chain, tmp_path, stage):
    plain = one_step(stage, chain, tmp_path)
    assert_close(one_step(stage, chain, tmp_path, train__channels_last=True), plain, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["mln_bicubic", "teacher", "student"])
def test_a_compiled_network_takes_the_same_step_and_leaves_the_same_names(chain, tmp_path, stage):
    plain = one_step(stage, chain, tmp_path)
    assert_close(one_step(stage, chain, tmp_path, train__compile=True), plain, rtol=1e-3, atol=1e-5)


class _Reads(TorchDispatchMode):
    """Names the calls that would make the host wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(name in str(function) for name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique")):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_never_reads_a_tensor_on_the_host(chain, tmp_path, stage):
    model, batch = build(stage, chain, tmp_path, train__clip_grad_norm=1.0)
    model.feed_data(batch)
    model.optimize_parameters(1)  # collapses the upscaler, once
    with _Reads() as reads:
        model.optimize_parameters(2)
    assert reads.found == []
    with reads:
        model.get_current_log()
    assert reads.found  # it would have been seen


@pytest.mark.parametrize("option", ["amp: bf16", "channels_last: true", "compile: true"])
def test_mln_meta_refuses_what_its_functional_step_cannot_use(chain, tmp_path, option):
    key, value = option.split(": ")
    opt = stage_options("mln_meta", chain, path__experiments_root=str(tmp_path))
    with pytest.raises(UserError, match=f"train: unknown key '{key}'"):
        train(opt, "--force_yml", f"train:{key}={value}")


SCHEDULERS = [
    {"type": "MultiStepLR", "milestones": [3, 6], "gamma": 0.5},
    {"type": "CosineAnnealingLR", "eta_min": 1e-4},
    {"type": "CosineAnnealingRestartLR", "periods": [3, 1, 4], "restart_weights": [1, 0.5, 0.2], "eta_min": 1e-5},
]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=[scheduler["type"] for scheduler in SCHEDULERS])
def test_learning_rates_are_basicsr_s_at_each_iteration(chain, tmp_path, scheduler):
    model, _ = build("mln_bicubic", chain, tmp_path, train__scheduler=scheduler, train__total_iter=8)
    reference = BaseModel({"num_gpu": 0, "is_train": True, "train": {"scheduler": {**scheduler}}})
    reference.optimizers = [torch.optim.SGD([torch.zeros(1)], lr=model.opt["train"]["optim_g"]["lr"])]
    if scheduler["type"] == "CosineAnnealingLR":  # BasicSR 1.4.2 has none: torch's
        reference.schedulers = [CosineAnnealingLR(reference.optimizers[0], 8, scheduler["eta_min"])]
    else:
        reference.setup_schedulers()
    for current_iter in range(1, 9):
        reference.optimizers[0].step()
        reference.update_learning_rate(current_iter)
        model.update_learning_rate(current_iter)
        assert model.get_current_learning_rate() == pytest.approx(reference.get_current_learning_rate())


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_resume_matrix(chain, tmp_path, stage, workers, processes):
    """Every stage, with and without loader processes, alone and as two, cut at a random iteration."""
    cut = random.Random(f"{stage} {workers} {processes}").randint(1, 7)
    opt = stage_options(stage, chain, datasets__train__num_worker_per_gpu=workers, train__total_iter=8)
    folders = []
    for name, totals in (("cut", (cut, 8)), ("whole", (8,))):
        opt["path"]["experiments_root"] = str(tmp_path / name)
        for total in totals:
            opt["train"]["total_iter"] = total
            finish(opt, "--auto_resume", processes=processes)
        folders.append(run_folder(opt))
    assert same_weights(*folders)
    assert training_state.load_state(folders[0] / "training_states/8.state")["iter"] == 8
