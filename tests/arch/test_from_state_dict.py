from __future__ import annotations

import inspect
from itertools import product

import pytest
import torch

from mrda_arch import MLN, MRDANet

TOY = {"num_feat": 6, "num_block": 2, "den_feat": 5}
VARIANTS = [
    {**TOY, "upscale": upscale, "upsampler": upsampler, "num_in_ch": ch, "num_out_ch": ch, "global_residual": residual}
    for upscale, upsampler, ch, residual in product(
        (2, 3, 4), ("pixelshuffle", "pixelshuffledirect"), (1, 3, 4), (False, True)
    )
] + [
    {**TOY, "modulation": "da"},
    {**TOY, "modulation": "da_vanilla"},
    {**TOY, "num_block": 11},  # names with two digits
    {**TOY, "den_in_ch": 7},  # a teacher
    {**TOY, "num_in_ch": 3, "num_out_ch": 1},
    {**TOY, "num_in_ch": 1, "num_out_ch": 3, "upscale": 2},
    {"num_feat": 4, "num_block": 1, "den_feat": 4, "upscale": 2},  # as many rows as x4 direct has for one channel
    {"num_feat": 3, "num_block": 1, "den_feat": 3},
    {"num_feat": 48, "num_block": 10, "den_feat": 32, "upsampler": "pixelshuffledirect", "global_residual": True},
]


def defaults(network):
    return {name: p.default for name, p in inspect.signature(network).parameters.items()}


@pytest.mark.parametrize("arguments", VARIANTS)
def test_every_argument_is_recovered(arguments):
    net = MRDANet(**arguments)
    recovered = MRDANet.hyper_parameters(net.state_dict())
    assert recovered == {**defaults(MRDANet), **arguments}


@pytest.mark.parametrize("arguments", [{"upscale": 2}, {"upscale": 3}, {"num_feat": 3}, {"num_in_ch": 1}])
def test_every_argument_of_mln_is_recovered(arguments):
    arguments = {"num_feat": 5, **arguments}
    assert MLN.hyper_parameters(MLN(**arguments).state_dict()) == {**defaults(MLN), **arguments}


@pytest.mark.parametrize(
    "net",
    [MRDANet(**TOY), MRDANet(**TOY, upscale=3, upsampler="pixelshuffledirect", global_residual=True), MLN(num_feat=5)],
)
def test_the_rebuilt_network_computes_the_same(net):
    lq = torch.rand(1, 3, 9, 7)
    rebuilt = type(net).from_state_dict(net.state_dict())
    assert torch.equal(rebuilt(lq), net(lq))
    assert all(p.requires_grad and p.device.type == "cpu" for p in rebuilt.parameters())


def changed(name, value):
    state = MRDANet(**TOY).state_dict()
    if value is None:
        del state[name]
    else:
        state[name] = value
    return state


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({}, "den.body.0.weight is missing"),
        (changed("rdan.head.weight", None), "rdan.head.weight is missing"),
        (changed("rdan.head.weight", torch.zeros(3)), r"rdan.head.weight has the shape \(3,\)"),
        (changed("rdan.head.weight", torch.zeros(0, 3, 3, 3)), r"rdan.head.weight has the shape \(0, 3, 3, 3\)"),
        (changed("rdan.blocks.0.conv1.bias", None), 'Missing key.*"rdan.blocks.0.conv1.bias"'),
        (changed("rdan.blocks.999999999.conv1.bias", torch.zeros(6)), "Missing key"),
        (changed("rdan.upscaler.0.weight", torch.zeros(25, 6, 3, 3)), "size mismatch for rdan.upscaler.0.weight"),
        (changed("rdan.upscaler.0.weight", torch.zeros(600, 6, 3, 3)), "upscale: 100 is not supported"),
        (changed("rdan.global_residual", None), "rdan.global_residual is missing"),
        (changed("rdan.head.weight", torch.zeros(()).expand(10**9, 3, 3, 3)), "overflowed"),  # else 108 GB
        (changed("rdan.head.bias", torch.zeros(6, dtype=torch.int8)), "gradients"),
        (MLN(num_feat=4).state_dict(), "den.body.0.weight is missing"),
    ],
)
def test_other_weights_are_refused_in_one_line(state, reason):
    with pytest.raises(ValueError, match=reason) as info:
        MRDANet.from_state_dict(state)
    assert "\n" not in str(info.value)
