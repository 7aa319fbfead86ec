from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mrda_arch import MLN
from mrda_model.adaptation import Adaptation, TaskBatch, adapt, adapted_features, meta_gradient, super_resolve
from mrda_utils.resize import imresize

LRS = [0.05, 0.03, 0.02]
ADAPTATION = Adaptation(LRS)


@pytest.fixture(params=["plain", "collapsed"])
def mln(request):
    """A small MLN whose upscaler is applied layer by layer, or collapsed since it is frozen."""
    net = MLN(num_feat=4, upscale=2).double()
    net.upscaler.requires_grad_(request.param == "plain")
    return net


def shots(seed, size=6, upscale=2):
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 3, upscale * size, upscale * size, generator=generator, dtype=torch.float64)
    return TaskBatch(imresize(gt, 1 / upscale), gt)


def sgd_on_a_copy(mln, task, lrs):
    """The same adaptation by torch.optim.SGD on a deep copy: an independent reference."""
    net = copy.deepcopy(mln)
    net.upscaler.requires_grad_(False)
    for lr in lrs:
        optimizer = torch.optim.SGD(net.body.parameters(), lr)
        optimizer.zero_grad()
        F.l1_loss(net(task.lq), task.gt).backward()
        optimizer.step()
    return net


def test_zero_steps_is_identity(mln):
    for first_order in (True, False):
        weights = adapt(mln, *shots(0), Adaptation([]), first_order=first_order)
        assert all(torch.equal(weights[name], p) for name, p in mln.body.named_parameters())
    features = adapted_features(mln, *shots(0), Adaptation([]))
    torch.testing.assert_close(features, mln.body(shots(0).lq).detach(), rtol=0, atol=1e-15)


def test_equals_sgd_on_a_copy(mln):
    weights, net = adapt(mln, *shots(0), ADAPTATION), sgd_on_a_copy(mln, shots(0), LRS)
    for name, p in net.body.named_parameters():
        torch.testing.assert_close(weights[name], p.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(adapted_features(mln, *shots(0), ADAPTATION), net.body(shots(0).lq).detach())


@pytest.mark.parametrize("adapt_per", ["task", "image"])
def test_with_the_upscaler_not_frozen_all_of_mln_adapts(mln, adapt_per):
    adaptation, task = ADAPTATION._replace(freeze_upscaler=False, adapt_per=adapt_per), shots(0)
    if adapt_per == "image":
        task = TaskBatch(task.lq[:1], task.gt[:1])
    net = copy.deepcopy(mln).requires_grad_(True)
    for lr in LRS:
        optimizer = torch.optim.SGD(net.parameters(), lr)
        optimizer.zero_grad()
        F.l1_loss(net(task.lq), task.gt).backward()
        optimizer.step()
    weights = adapt(mln, *task, adaptation)
    names = {**dict(net.body.named_parameters()), **dict(net.upscaler.named_parameters(prefix="upscaler"))}
    assert list(weights) == list(names)
    for name, p in names.items():
        own = weights[name][0] if adapt_per == "image" else weights[name]
        torch.testing.assert_close(own, p.detach(), rtol=0, atol=1e-14)
    sr = super_resolve(mln, weights, task.lq, imresize(task.lq, 2), adaptation)
    torch.testing.assert_close(sr, net(task.lq))
    torch.testing.assert_close(adapted_features(mln, *task, adaptation), net.body(task.lq).detach())


def test_with_the_upscaler_not_frozen_it_has_a_meta_gradient():
    mln, support, query = MLN(num_feat=4, upscale=2).double(), shots(0), shots(1)
    adaptation = ADAPTATION._replace(freeze_upscaler=False)
    net = copy.deepcopy(mln)
    with torch.no_grad():
        for (name, p), q in zip(net.named_parameters(), adapt(mln, *support, adaptation).values(), strict=True):
            assert p.shape == q.shape, name
            p.copy_(q)
    F.l1_loss(net(query.lq), query.gt).backward()
    for first_order in (True, False):
        _, grads = meta_gradient(mln, support, query, adaptation, F.l1_loss, first_order=first_order)
        for grad, p in zip(grads, net.parameters(), strict=True):
            assert grad.shape == p.shape
            if first_order:
                torch.testing.assert_close(grad, p.grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("first_order", [True, False])
def test_master_weights_stay_bit_identical(mln, first_order):
    before = copy.deepcopy(mln.state_dict())
    adapt(mln, *shots(0), ADAPTATION, first_order=first_order)
    meta_gradient(mln, shots(0), shots(1), ADAPTATION, F.l1_loss, first_order=first_order)
    assert all(torch.equal(before[name], p) for name, p in mln.state_dict().items())
    assert all(p.grad is None for p in mln.parameters())


def test_task_a_leaves_no_trace_in_task_b(mln):
    alone = adapted_features(mln, *shots(1), ADAPTATION)
    adapted_features(mln, *shots(0), ADAPTATION)
    assert torch.equal(adapted_features(mln, *shots(1), ADAPTATION), alone)


def test_adaptation_lowers_the_loss(mln):
    task = shots(0)
    lq_up = imresize(task.lq, 2)
    losses = []
    for steps in range(4):
        adaptation = Adaptation([0.05] * steps)
        sr = super_resolve(mln, adapt(mln, *task, adaptation), task.lq, lq_up, adaptation)
        losses.append(F.l1_loss(sr, task.gt).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_frozen_network_adapts_within_no_grad(mln):
    expected = adapted_features(mln, *shots(0), ADAPTATION)
    mln.eval().requires_grad_(False)
    with torch.no_grad():
        features = adapted_features(mln, *shots(0), ADAPTATION)
    torch.testing.assert_close(features, expected)
    assert not features.requires_grad


def test_first_order_is_the_plain_gradient_at_the_fast_weights(mln):
    support, query = shots(0), shots(1)
    net = sgd_on_a_copy(mln, support, LRS)
    net.zero_grad()
    expected_loss = F.l1_loss(net(query.lq), query.gt)
    expected_loss.backward()
    loss, grads = meta_gradient(mln, support, query, ADAPTATION, F.l1_loss)
    torch.testing.assert_close(loss, expected_loss.detach())
    for grad, p in zip(grads, net.body.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=0, atol=1e-14)


def test_second_order_agrees_with_finite_differences():
    mln = MLN(num_feat=2, upscale=2).double()
    mln.upscaler.requires_grad_(False)
    # L2 in the place of L1 outside: finite differences need a smooth loss (the inner L1's kinks are not crossed)
    support, query = shots(0, size=4), shots(1, size=4)
    _, grads = meta_gradient(mln, support, query, ADAPTATION, F.mse_loss, first_order=False)
    _, first_order = meta_gradient(mln, support, query, ADAPTATION, F.mse_loss)
    generator, eps, checked = torch.Generator().manual_seed(0), 1e-6, 0
    for p, grad, plain in zip(mln.body.parameters(), grads, first_order, strict=True):
        direction = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * eps * direction
            values.append(meta_gradient(mln, support, query, ADAPTATION, F.mse_loss)[0].item())
            with torch.no_grad():
                p -= sign * eps * direction
        slope = (values[0] - values[1]) / (2 * eps)
        assert (grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
        checked += abs((plain * direction).sum().item() - slope) > 1e-4 * abs(slope)
    assert checked > 5  # the two orders do differ


@pytest.mark.parametrize("frozen", [True, False])
def test_per_image_equals_a_loop_over_images(frozen):
    mln = MLN(num_feat=4, upscale=2).double()
    mln.upscaler.requires_grad_(not frozen)
    lq, gt = shots(0)
    adaptation = Adaptation(LRS, adapt_per="image")
    loop = torch.cat([adapted_features(mln, lq[i : i + 1], gt[i : i + 1], ADAPTATION) for i in range(len(lq))])
    torch.testing.assert_close(adapted_features(mln, lq, gt, adaptation), loop, rtol=0, atol=1e-13)
    assert not torch.allclose(adapted_features(mln, lq, gt, ADAPTATION), loop, rtol=0, atol=1e-6)


def test_bfloat16_stays_near_float32(bfloat16):
    mln = MLN(num_feat=16, upscale=4).requires_grad_(False)
    gt = torch.rand(2, 3, 64, 96)
    lq = imresize(gt, 1 / 4)
    single = adapted_features(mln, lq, gt, Adaptation([0.01] * 5))
    half = adapted_features(mln, lq, gt, Adaptation([0.01] * 5, dtype="bfloat16"))
    assert half.dtype == torch.float32
    assert 0 < (half - single).norm() < 1e-2 * single.norm()


@pytest.mark.slow
def test_bfloat16_stays_finite_over_1000_tasks(bfloat16):
    mln = MLN(num_feat=32, upscale=4).requires_grad_(False)
    adaptation = Adaptation([0.01] * 5, dtype="bfloat16")
    for task in range(1000):
        gt = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(task))
        assert torch.isfinite(adapted_features(mln, imresize(gt, 1 / 4), gt, adaptation)).all()
