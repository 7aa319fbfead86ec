from __future__ import annotations

import math

import pytest
import torch

from mrda_loss import IDRDistillLoss


def by_hand(student, target, temperature):
    """Paper Eq. (4) and (5) with plain loops, averaged over samples."""
    l_kl = l_abs = 0.0
    for s, t in zip(student.tolist(), target.tolist(), strict=True):
        zs, zt = (sum(math.exp(v / temperature) for v in row) for row in (s, t))
        for a, b in zip(s, t, strict=True):
            ps, pt = math.exp(a / temperature) / zs, math.exp(b / temperature) / zt
            l_kl += pt * math.log(pt / ps)
            l_abs += abs(a - b)
    return l_kl / student.numel(), l_abs / student.numel()


@pytest.mark.parametrize("temperature", [0.15, 1.0])
def test_equals_the_equations(temperature):
    student, target = torch.randn(2, 3, 8, dtype=torch.float64)
    terms = IDRDistillLoss(kl_weight=2.0, abs_weight=0.5, temperature=temperature)(student, target)
    l_kl, l_abs = by_hand(student, target, temperature)
    assert terms.l_kl.item() == pytest.approx(2.0 * l_kl)
    assert terms.l_abs.item() == pytest.approx(0.5 * l_abs)


def test_equal_representations_cost_nothing():
    idr = torch.randn(4, 8)
    assert [term.item() for term in IDRDistillLoss()(idr, idr.clone())] == pytest.approx([0, 0], abs=1e-7)


def test_large_representations_stay_finite():
    terms = IDRDistillLoss()(torch.tensor([[1e3, -1e3]]), torch.tensor([[-1e3, 1e3]]))
    assert all(torch.isfinite(term) for term in terms)


def test_gradient_reaches_the_student_alone_and_leads_to_the_teacher():
    target = torch.randn(2, 8)
    student = torch.randn(2, 8, requires_grad=True)
    loss, optimizer = IDRDistillLoss(abs_weight=1.0), torch.optim.Adam([student], 0.05)
    start = sum(loss(student, target)).item()
    for _ in range(100):
        optimizer.zero_grad()
        sum(loss(student, target)).backward()
        optimizer.step()
    assert sum(loss(student, target)).item() < 0.1 * start
