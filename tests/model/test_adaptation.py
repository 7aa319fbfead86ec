from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mrda_arch import MLN
from mrda_model.adaptation import Shots, adapt, adapted_features, meta_gradient, super_resolve
from mrda_utils.resize import imresize

LRS = [0.05, 0.03, 0.02]


@pytest.fixture
def mln():
    return MLN(num_feat=4, upscale=2).double()


def shots(seed, size=6, upscale=2):
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(2, 3, upscale * size, upscale * size, generator=generator, dtype=torch.float64)
    return Shots(imresize(gt, 1 / upscale), gt)


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
        weights = adapt(mln, *shots(0), [], first_order=first_order)
        assert all(torch.equal(weights[name], p) for name, p in mln.body.named_parameters())
    assert torch.equal(adapted_features(mln, *shots(0), []), mln.body(shots(0).lq))


def test_equals_sgd_on_a_copy(mln):
    weights, net = adapt(mln, *shots(0), LRS), sgd_on_a_copy(mln, shots(0), LRS)
    for name, p in net.body.named_parameters():
        torch.testing.assert_close(weights[name], p.detach(), rtol=0, atol=1e-15)
    torch.testing.assert_close(adapted_features(mln, *shots(0), LRS), net.body(shots(0).lq).detach())


@pytest.mark.parametrize("first_order", [True, False])
def test_master_weights_stay_bit_identical(mln, first_order):
    before = copy.deepcopy(mln.state_dict())
    adapt(mln, *shots(0), LRS, first_order=first_order)
    meta_gradient(mln, shots(0), shots(1), LRS, F.l1_loss, first_order=first_order)
    assert all(torch.equal(before[name], p) for name, p in mln.state_dict().items())
    assert all(p.grad is None for p in mln.parameters())


def test_task_a_leaves_no_trace_in_task_b(mln):
    alone = adapted_features(mln, *shots(1), LRS)
    adapted_features(mln, *shots(0), LRS)
    assert torch.equal(adapted_features(mln, *shots(1), LRS), alone)


def test_adaptation_lowers_the_loss(mln):
    task = shots(0)
    lq_up = imresize(task.lq, 2)
    losses = []
    for steps in range(4):
        weights = adapt(mln, *task, [0.05] * steps)
        losses.append(F.l1_loss(super_resolve(mln, weights, task.lq, lq_up), task.gt).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_a_frozen_network_adapts_within_no_grad(mln):
    expected = adapted_features(mln, *shots(0), LRS)
    mln.eval().requires_grad_(False)
    with torch.no_grad():
        features = adapted_features(mln, *shots(0), LRS)
    assert torch.equal(features, expected)
    assert not features.requires_grad


def test_first_order_is_the_plain_gradient_at_the_fast_weights(mln):
    support, query = shots(0), shots(1)
    net = sgd_on_a_copy(mln, support, LRS)
    net.zero_grad()
    expected_loss = F.l1_loss(net(query.lq), query.gt)
    expected_loss.backward()
    loss, grads = meta_gradient(mln, support, query, LRS, F.l1_loss)
    torch.testing.assert_close(loss, expected_loss.detach())
    for grad, p in zip(grads, net.body.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=0, atol=1e-15)


def test_second_order_agrees_with_finite_differences():
    mln = MLN(num_feat=2, upscale=2).double()
    # L2 in the place of L1 outside: finite differences need a smooth loss (the inner L1's kinks are not crossed)
    support, query = shots(0, size=4), shots(1, size=4)
    _, grads = meta_gradient(mln, support, query, LRS, F.mse_loss, first_order=False)
    _, first_order = meta_gradient(mln, support, query, LRS, F.mse_loss)
    generator, eps, checked = torch.Generator().manual_seed(0), 1e-6, 0
    for p, grad, plain in zip(mln.body.parameters(), grads, first_order, strict=True):
        direction = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p += sign * eps * direction
            values.append(meta_gradient(mln, support, query, LRS, F.mse_loss)[0].item())
            with torch.no_grad():
                p -= sign * eps * direction
        slope = (values[0] - values[1]) / (2 * eps)
        assert (grad * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
        checked += abs((plain * direction).sum().item() - slope) > 1e-4 * abs(slope)
    assert checked > 5  # the two orders do differ
