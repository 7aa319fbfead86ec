from __future__ import annotations

import pytest
import torch

from mrda_arch import MLN, MRDANet
from mrda_arch.collapse import CollapsedUpscaler, collapse_upscaler, collapsed
from mrda_arch.den_arch import DEN
from mrda_model.adaptation import Adaptation, adapted_features, super_resolve
from mrda_utils.resize import imresize


def frozen(num_feat=5, factor=4, seed=0):
    torch.manual_seed(seed)
    mln = MLN(num_feat=num_feat, upscale=factor)
    mln.upscaler.requires_grad_(False)
    return mln


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("size", [(3, 3), (3, 9), (4, 4), (16, 16), (37, 53)])
def test_equals_the_upscaler_border_included(factor, size):
    mln = frozen(factor=factor).double()
    feat = torch.randn(2, 5, *size, dtype=torch.float64)
    expected = mln.upscaler(feat)
    assert torch.allclose(collapsed(mln.upscaler, factor)(feat), expected, rtol=0, atol=1e-13 * expected.abs().max())


def test_its_gradient_is_the_upscalers():
    mln = frozen().double()
    feat = torch.randn(1, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(1, 3, 24, 28, dtype=torch.float64)
    (ours,) = torch.autograd.grad(collapsed(mln.upscaler, 4)(feat), feat, seed)
    (expected,) = torch.autograd.grad(mln.upscaler(feat), feat, seed)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("size", [(3, 3), (3, 5), (6, 4)])
def test_its_gradients_of_any_order_are_right_border_included(size):
    upscaler = collapsed(frozen(2, 2).double().upscaler, 2)
    feat = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(upscaler, feat)
    # the map is affine, so its square's second derivative shows the gradient's own
    assert torch.autograd.gradgradcheck(lambda x: upscaler(x).square(), feat)


def test_parts_made_under_inference_mode_serve_a_training():
    mln = frozen()
    with torch.inference_mode():
        collapsed(mln.upscaler, 4)(torch.rand(1, 5, 4, 4))
    feat = torch.rand(1, 5, 4, 4, requires_grad=True)
    collapsed(mln.upscaler, 4)(feat).sum().backward()
    assert feat.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", [(16, 16), (24, 40), (37, 53)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_idr_is_that_of_the_plain_path(dtype, tolerance, size, factor):
    mln, den = frozen(16, factor).to(dtype), DEN(num_in_ch=16, num_feat=8).to(dtype)
    gt = torch.rand(2, 3, factor * size[0], factor * size[1], dtype=dtype)
    lq = imresize(gt, 1 / factor)
    fast = den(adapted_features(mln, lq, gt, Adaptation([0.01] * 5)))
    plain = den(adapted_features(mln, lq, gt, Adaptation([0.01] * 5, collapse=False)))
    assert (fast - plain).norm() <= tolerance * plain.norm()


def test_built_once_and_again_when_the_weights_change():
    mln = frozen()
    first = collapsed(mln.upscaler, 4)
    assert collapsed(mln.upscaler, 4) is first
    feat = torch.randn(1, 5, 4, 4)
    mln.load_state_dict(frozen(seed=1).state_dict())
    again = collapsed(mln.upscaler, 4)
    assert again is not first
    torch.testing.assert_close(again(feat), mln.upscaler(feat), rtol=1e-4, atol=1e-5)


def test_a_trained_upscaler_takes_the_plain_path(monkeypatch):
    def refuse(self, feat):
        raise AssertionError("collapsed")

    monkeypatch.setattr(CollapsedUpscaler, "unshuffled", refuse)
    mln, lq = frozen(), torch.rand(1, 3, 3, 9)
    weights = dict(mln.body.named_parameters())
    with pytest.raises(AssertionError, match="collapsed"):
        super_resolve(mln, weights, lq, imresize(lq, 4), Adaptation([]))
    mln.upscaler.requires_grad_(True)
    assert super_resolve(mln, weights, lq, imresize(lq, 4), Adaptation([])).shape == (1, 3, 12, 36)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 3), (20, 13)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_network_that_only_restores_gives_the_same_image(factor, size):
    torch.manual_seed(0)
    net, lq = MRDANet(num_feat=6, num_block=2, den_feat=4, upscale=factor).double(), torch.rand(2, 3, *size).double()
    expected, weights = net(lq), net.state_dict()
    assert not isinstance(net.rdan.upscaler, CollapsedUpscaler)
    found = collapse_upscaler(net)(lq)
    assert isinstance(net.rdan.upscaler, CollapsedUpscaler)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert len(net.state_dict()) == len(weights)


@torch.inference_mode()
def test_it_can_be_built_where_there_are_no_gradients():
    net, lq = MRDANet(num_feat=6, num_block=1, den_feat=4), torch.rand(1, 3, 5, 6)
    expected = net(lq)
    torch.testing.assert_close(collapse_upscaler(net)(lq), expected, rtol=0, atol=1e-5)


def test_a_direct_tail_stays():
    net = MRDANet(num_feat=6, num_block=1, den_feat=4, upsampler="pixelshuffledirect")
    assert not isinstance(collapse_upscaler(net).rdan.upscaler, CollapsedUpscaler)
