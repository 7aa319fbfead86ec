from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mrda_arch import DEN, MLN, RDAN, MRDAKernelNet, MRDANet
from mrda_arch.arch_util import Upscaler
from mrda_arch.rdan_arch import DAConv, RDAConv, depthwise_per_sample, modulation_maps
from mrda_eval.complexity import count_mult_adds, count_parameters
from mrda_utils.resize import imresize

TOY = {"num_feat": 8, "num_block": 2, "den_feat": 4}


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (MRDANet(), 5_838_713),  # paper Table II: 5.84 M
        (DEN(), 1_276_992),
        (MRDANet(den_in_ch=128), 5_910_713),
        (MLN(), 2_073_219),
        (MRDANet(num_feat=128, num_block=21, den_feat=128), 19_587_757),  # Table IV: 19.59 M
    ],
    ids=["student", "den", "teacher", "mln", "student_gan"],
)
def test_parameter_count(net, parameters):
    assert count_parameters(net) == parameters
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == parameters


@pytest.mark.parametrize(
    ("net", "giga"),
    [(MRDANet(), 171.54), (MRDANet(num_feat=128, num_block=21, den_feat=128), 575.7)],
    ids=["student", "student_gan"],
)
def test_mult_adds_at_180x320(net, giga):
    assert count_mult_adds(net) / 1e9 == pytest.approx(giga, rel=0.005)


def test_mult_adds_of_one_layer_by_hand():
    assert count_mult_adds(torch.nn.Conv2d(3, 5, 3, padding=1), [(1, 3, 10, 20)]) == 10 * 20 * 3 * 5 * 9


@pytest.mark.parametrize("upscale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16)])
@pytest.mark.parametrize("direct", [False, True])
def test_output_size(upscale, size, direct):
    lq = torch.rand(2, 3, *size)
    upsampler = "pixelshuffledirect" if direct else "pixelshuffle"
    net = MRDANet(**TOY, upscale=upscale, upsampler=upsampler, global_residual=direct)
    assert net(lq).shape == (2, 3, upscale * size[0], upscale * size[1])
    assert MLN(num_feat=4, upscale=upscale)(lq).shape == net(lq).shape


def test_gray_network():
    assert MRDANet(**TOY, num_in_ch=1, num_out_ch=1, den_in_ch=1)(torch.rand(1, 1, 6, 6)).shape == (1, 1, 24, 24)


def test_result_type_follows_the_argument_in_train_and_eval():
    net, lq = MRDANet(**TOY), torch.rand(1, 3, 8, 8)
    for mode in (True, False):
        net.train(mode)
        assert isinstance(net(lq), torch.Tensor)
        sr, idr = net(lq, return_idr=True)
        assert torch.equal(sr, net(lq))
        assert idr.shape == (1, 16)


def test_teacher_looks_at_cond_and_student_at_lq():
    lq, cond = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 8, 8)
    teacher, student = MRDANet(**TOY, den_in_ch=5), MRDANet(**TOY)
    assert torch.equal(teacher(lq, cond, return_idr=True)[1], teacher.den(cond))
    assert torch.equal(student(lq, return_idr=True)[1], student.den(lq))


def test_batch_of_two_idrs_equals_two_batches_of_one():
    net = RDAN(num_feat=8, num_block=3, idr_dim=16).double()
    lq, idr = torch.rand(2, 3, 9, 7).double(), torch.randn(2, 16).double()
    single = torch.cat([net(lq[i : i + 1], idr[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(net(lq, idr), single, rtol=0, atol=1e-12)


def test_changing_the_idr_changes_the_output():
    net, lq = RDAN(num_feat=8, num_block=2, idr_dim=16), torch.rand(1, 3, 8, 8)
    assert not torch.allclose(net(lq, torch.randn(1, 16)), net(lq, torch.randn(1, 16)), atol=1e-5)


def test_depthwise_per_sample_equals_a_loop():
    feat, kernel = torch.randn(3, 4, 6, 5).double(), torch.randn(3, 4, 3, 3).double()
    padded = F.pad(feat, (1, 1, 1, 1))
    expected = torch.zeros_like(feat)
    for y in range(6):
        for x in range(5):
            expected[:, :, y, x] = (padded[:, :, y : y + 3, x : x + 3] * kernel).sum((2, 3))
    torch.testing.assert_close(depthwise_per_sample(feat, kernel), expected)


def test_rda_conv_is_paper_eq_8_to_10():
    layer = RDAConv(4).double()
    feat, cond = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 4).double()
    hidden = F.leaky_relu(cond @ layer.kernel[0].weight.T, 0.1)
    kernel = (hidden @ layer.kernel[2].weight.T).view(2, 4, 3, 3)
    f1 = F.leaky_relu(depthwise_per_sample(feat, kernel), 0.1)
    weight, bias = layer.modulation.weight.view(1, 4, 1, 1), layer.modulation.bias
    m = 1 / (1 + torch.exp(-((feat * weight).sum(1, keepdim=True) + bias)))
    torch.testing.assert_close(layer(feat, cond), m * f1 + feat)


@pytest.mark.parametrize("vanilla", [False, True])
def test_da_conv_filters_by_the_representation_and_weighs_channels(vanilla):
    conv, feat, cond = DAConv(16, vanilla=vanilla), torch.randn(2, 16, 5, 6), torch.randn(2, 16)
    if vanilla:
        kernels = conv.kernel.weight[:, 0].expand(2, 16, 3, 3)
    else:
        first, second = conv.kernel[0].weight, conv.kernel[2].weight
        kernels = (F.leaky_relu(cond @ first.T, 0.1) @ second.T).view(2, 16, 3, 3)
    padded = F.pad(feat, (1, 1, 1, 1))
    filtered = sum(
        kernels[:, :, y, x, None, None] * padded[:, :, y : y + 5, x : x + 6] for y in range(3) for x in range(3)
    )
    mixed = torch.einsum("oc,nchw->nohw", conv.conv.weight[:, :, 0, 0], F.leaky_relu(filtered, 0.1))
    hidden = F.leaky_relu(cond @ conv.attention[0].weight.T, 0.1)
    attention = torch.sigmoid(hidden @ conv.attention[2].weight.T)
    assert hidden.shape == (2, 2)
    expected = mixed + conv.conv.bias[:, None, None] + attention[:, :, None, None] * feat
    torch.testing.assert_close(conv(feat, cond), expected, rtol=1e-4, atol=1e-5)
    contiguous_last = feat.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(conv(contiguous_last, cond), expected, rtol=1e-4, atol=1e-5)


def test_modulations_differ_in_the_rda_convs_alone_and_do_not_take_each_others_weights():
    nets = {modulation: MRDANet(**TOY, modulation=modulation) for modulation in ("rdam", "da", "da_vanilla")}
    convs = {name: type(net.rdan.blocks[1].rda2) for name, net in nets.items()}
    assert convs == {"rdam": RDAConv, "da": DAConv, "da_vanilla": DAConv}
    rest = [{k: v.shape for k, v in net.state_dict().items() if ".rda" not in k} for net in nets.values()]
    assert rest[0] == rest[1] == rest[2]
    for name, net in nets.items():
        assert net(torch.rand(1, 3, 5, 4)).shape == (1, 3, 20, 16)
        for other, other_net in nets.items():
            if other != name:
                with pytest.raises(RuntimeError, match="rda1"):
                    net.load_state_dict(other_net.state_dict())


def test_the_kernel_net_has_five_linear_layers_and_sees_the_kernel():
    net = MRDAKernelNet(**TOY, kernel_size=5)
    linear = [layer for layer in net.encoder if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(25, 16), *[(16, 16)] * 4]
    lq, kernels = torch.rand(2, 3, 5, 6), torch.rand(2, 5, 5)
    x = kernels.reshape(2, 25)
    for layer in linear:
        x = F.linear(x if layer is linear[0] else F.leaky_relu(x, 0.1), layer.weight, layer.bias)
    torch.testing.assert_close(net(lq, kernels), net.rdan(lq, x))
    assert not torch.allclose(net(lq, kernels), net(lq, kernels.flip(0)))
    with pytest.raises(RuntimeError, match=r"encoder\.0\.weight"):
        net.load_state_dict(MRDANet(**TOY).state_dict())


def test_gradients_of_rda_conv():
    layer = RDAConv(2).double()
    feat = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    cond = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (feat, cond))


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_upscaler_is_linear(upscale):
    net = Upscaler(4, 3, upscale).double()
    a, b = torch.randn(2, 1, 4, 6, 6).double()
    zero = net(torch.zeros_like(a))
    torch.testing.assert_close(net(2 * a - 3 * b) - zero, 2 * (net(a) - zero) - 3 * (net(b) - zero))


def test_mln_adds_bicubic_upsampling():
    mln, lq = MLN(num_feat=4), torch.rand(1, 3, 6, 6)
    for p in mln.upscaler.parameters():
        torch.nn.init.zeros_(p)
    assert torch.equal(mln(lq), imresize(lq, 4))


def test_global_residual_starts_from_bicubic():
    net, lq = MRDANet(**TOY, global_residual=True), torch.rand(1, 3, 6, 6)
    for p in net.rdan.upscaler.parameters():
        torch.nn.init.zeros_(p)
    assert torch.equal(net(lq), imresize(lq, 4))


def test_global_residual_is_in_the_state_dict():
    with pytest.raises(RuntimeError, match="global_residual: the checkpoint was trained with True"):
        MRDANet(**TOY).load_state_dict(MRDANet(**TOY, global_residual=True).state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upscale": 5}, "upscale: 5"),
        ({"upsampler": "nearest"}, "upsampler: 'nearest'"),
        ({"upsampler": "pixelshuffledirect", "num_out_ch": 1}, "num_in_ch == num_out_ch"),
        ({"global_residual": True, "num_in_ch": 1}, "num_in_ch == num_out_ch"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MRDANet(**TOY, **arguments)


def test_constructors_take_no_unknown_or_positional_arguments():
    with pytest.raises(TypeError):
        MRDANet(num_fea=64)
    with pytest.raises(TypeError):
        MLN(64)


@pytest.mark.parametrize("cond_ch", [3, 8])
def test_the_layout_in_memory_changes_nothing_but_rounding(monkeypatch, cond_ch):
    net = MRDANet(num_feat=8, num_block=2, den_in_ch=cond_ch, den_feat=4).double()
    lq, cond = torch.rand(3, 3, 9, 11).double().requires_grad_(), torch.rand(3, cond_ch, 9, 11).double()

    def run():
        sr = net(lq, cond)
        grads = torch.autograd.grad(sr.square().sum(), [lq, *net.parameters()])
        return sr.detach(), grads

    def unchanged(x):
        return x

    sr, grads = run()
    assert sr.is_contiguous()
    monkeypatch.setattr("mrda_arch.rdan_arch.fast_layout", unchanged)
    monkeypatch.setattr("mrda_arch.den_arch.fast_layout", unchanged)
    plain_sr, plain_grads = run()
    torch.testing.assert_close(sr, plain_sr, rtol=0, atol=1e-12)
    torch.testing.assert_close(grads, plain_grads, rtol=1e-9, atol=1e-9)


def test_modulation_maps_are_those_that_each_rda_conv_multiplies_by():
    net = MRDANet(**TOY).eval()
    with torch.no_grad():
        for block in net.rdan.blocks:
            block.rda1.modulation.bias.fill_(50)  # so M is 1 there, by the sigmoid
        lq = torch.rand(1, 3, 9, 7)
        maps = modulation_maps(net, lq)
        assert maps.shape == (4, 9, 7)
        assert torch.equal(maps[0::2], torch.ones(2, 9, 7))
        assert 0 < maps[1::2].min() < maps[1::2].max() < 1
        torch.testing.assert_close(maps, modulation_maps(net.rdan, lq, net.den(lq)))

        rdan, block = net.rdan, net.rdan.blocks[0]  # the second map by hand
        cond = rdan.compress(net.den(lq))
        feat = F.leaky_relu(block.rda1(rdan.head(lq - rdan.mean), cond), 0.1)
        feat = F.leaky_relu(block.conv1(feat), 0.1)
        weight, bias = block.rda2.modulation.weight.flatten(), block.rda2.modulation.bias
        torch.testing.assert_close(maps[1], torch.sigmoid(torch.einsum("chw,c->hw", feat[0], weight) + bias))
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_network_without_rda_conv_has_no_modulation_maps():
    with pytest.raises(ValueError, match="DEN has no RDA conv"):
        modulation_maps(DEN(num_feat=4), torch.rand(1, 3, 8, 8))
