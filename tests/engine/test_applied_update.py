"""What a step does to the weights, not to the gradient: a fused Adam must move them as a plain one does."""

from __future__ import annotations

import pytest
import torch

from mrda_model import training_state
from mrda_model.guarded_step import guarded_step
from tests.model.conftest import STAGES
from tests.model.test_adversarial import GAN
from tests.model.test_stages import build

BF16 = {"train__amp": "bf16"}
LAST = {"train__channels_last": True}
ADAPT_BF16 = {"adaptation__dtype": "bfloat16"}
ACCUMULATE = {"datasets__train__tasks_per_gpu": 1, "train__accumulation_steps": 2}
PER_IMAGE = {"adaptation__adapt_per": "image"}
VARIANTS = {
    "mln_bicubic": [{}, BF16, LAST, BF16 | LAST, ACCUMULATE],
    "mln_meta": [
        {},
        ADAPT_BF16,
        ACCUMULATE,
        {"train__meta__first_order": False},
        {"adaptation__freeze_upscaler": False},
        {"train__clip_grad_norm": 1e-3},
    ],
    "teacher": [{}, BF16, LAST, BF16 | LAST | ADAPT_BF16, GAN, GAN | LAST | BF16, PER_IMAGE],
    "student": [{}, BF16, LAST, BF16 | LAST | ADAPT_BF16, GAN, GAN | LAST | BF16, ACCUMULATE],
}
CASES = [(stage, changes) for stage in STAGES for changes in VARIANTS[stage]]


def trained(model):
    """Parameters of all optimizers of a model."""
    return [p for optimizer in model.optimizers for group in optimizer.param_groups for p in group["params"]]


def take_steps(model, batch, count, first=1):
    for step in range(first, first + count):
        model.update_learning_rate(step)
        model.feed_data(batch)
        model.optimize_parameters(step)


def plain_adam(model):
    """Let a model step by torch's loop over parameters, which knows strides, not by the fused kernel."""
    for optimizer in model.optimizers:
        for group in optimizer.param_groups:
            group.update(fused=False, foreach=False)
        optimizer.register_step_pre_hook(lambda own, *_: setattr(own, "found_inf", None))  # the fused one's alone


@pytest.mark.parametrize(("stage", "changes"), CASES)
def test_the_fused_step_moves_the_weights_as_plain_adam_does(bfloat16, chain, tmp_path, stage, changes):
    found, started = [], None
    for make_plain in (False, True):
        torch.manual_seed(0)
        model, batch = build(stage, chain, tmp_path, **changes)
        started = [p.detach().clone() for p in trained(model)]
        if make_plain:
            plain_adam(model)
        take_steps(model, batch, 1)
        found.append(trained(model))
    for before, fused, plain in zip(started, *found, strict=True):
        torch.testing.assert_close(fused - before, plain - before, rtol=1e-3, atol=1e-7)
    assert sum(bool((plain != before).any()) for before, plain in zip(started, found[1], strict=True)) > 4


@pytest.mark.parametrize("stage", ["mln_bicubic", "teacher", "student"])
@pytest.mark.parametrize("before", [False, True])
def test_a_run_goes_on_the_same_in_the_other_memory_format(chain, tmp_path, stage, before):
    """Three steps in one format and three in the other are six in one, up to the rounding of the convolutions."""
    root = {"path__experiments_root": str(tmp_path)}
    results = []
    for after in (before, not before):
        torch.manual_seed(0)
        model, batch = build(stage, chain, tmp_path, train__channels_last=before, **root)
        take_steps(model, batch, 3)
        state = model.save(3)
        model, batch = build(stage, chain, tmp_path, train__channels_last=after, **root)
        model.resume_training(training_state.load_state(state), state)
        take_steps(model, batch, 1, first=4)
        results.append(trained(model))
    for same, other in zip(*results, strict=True):
        torch.testing.assert_close(other, same, rtol=0, atol=2e-5)  # lr is 1e-3


@pytest.mark.parametrize("part", ["gradient", "exp_avg"])
def test_a_gradient_or_moment_in_another_layout_than_its_weight_is_refused(part):
    weight = torch.nn.Parameter(torch.zeros(8, 8, 3, 3))
    optimizer = torch.optim.Adam([weight], lr=1.0, fused=True)
    weight.grad = torch.randn(8, 8, 3, 3)
    guarded_step(optimizer, [])
    other = torch.randn(8, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    if part == "gradient":
        weight.grad = other
    else:
        optimizer.state[weight]["exp_avg"] = other
    before = weight.detach().clone()
    with pytest.raises(RuntimeError, match=rf"{part} of a weight \[8, 8, 3, 3\]: its layout"):
        guarded_step(optimizer, [])
    assert torch.equal(weight, before)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_without_a_largest_norm_the_gradient_is_measured_and_not_written(clip):
    weight = torch.nn.Parameter(torch.zeros(8))
    weight.grad = torch.ones(8)
    written = weight.grad._version
    guarded_step(torch.optim.Adam([weight], fused=True), [], clip)
    assert (weight.grad._version != written) == (clip is not None)


def test_sides_of_one_have_any_stride():
    weight = torch.nn.Parameter(torch.zeros(1, 8, 1, 1))
    optimizer = torch.optim.Adam([weight], lr=1.0, fused=True)
    weight.grad = torch.ones(1, 8, 1, 1).contiguous(memory_format=torch.channels_last)
    guarded_step(optimizer, [])
    assert torch.allclose(weight, torch.full_like(weight, -1))
