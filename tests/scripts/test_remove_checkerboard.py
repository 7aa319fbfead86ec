"""A grid goes, and what is drawn within a cell stays; the fit is that of plain least squares."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mrda_arch import MLN, MRDANet, network_from_file
from mrda_data.degradation.photo import photo_degrade
from mrda_data.gt_dataset import GTDataset
from mrda_data.images import centre, to_tensor
from mrda_data.sources import BundledSource
from mrda_model.weights import Provenance, save_network
from mrda_options import read_options
from mrda_utils import checkpoint
from mrda_utils.errors import OptionError
from mrda_utils.seeding import torch_generator
from mrda_utils.shipped import shipped_weights
from scripts import remove_checkerboard
from scripts.remove_checkerboard import CELL, grid, main, refit, training_pairs

TOY = {"num_feat": 6, "num_block": 1, "den_feat": 4, "upsampler": "pixelshuffledirect", "global_residual": True}
HERE = Provenance("MRDAStudentModel", 4, "type isotropic, sigma [0.2, 4.0]")
DEMO = Path(__file__).resolve().parents[2] / "options/demo/train_student_x4.yml"


def student(**options):
    torch.manual_seed(0)
    return MRDANet(**{**TOY, **options}).eval().requires_grad_(False)


def photographs(count=6, side=4 * CELL):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 3, side, side, generator=generator) for _ in range(count)]


def test_a_constant_grid_is_taken_out_and_nothing_else():
    net = student()
    wanted = {name: value.clone() for name, value in net.state_dict().items()}
    pairs = [(lq, net(lq)) for lq in photographs()]
    offsets = torch.randn(3, 16)
    net.rdan.upscaler[0].bias += 0.01 * (offsets - offsets.mean(1, keepdim=True)).flatten()
    assert grid([net(lq) - gt for lq, gt in pairs], 4) > 1
    refit(net, pairs)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-5, msg=name)


def test_the_fit_is_least_squares_of_the_mean_error_of_each_phase_over_a_cell():
    net, pairs = student(), [(lq, F.interpolate(lq, scale_factor=4) ** 2) for lq in photographs()]
    conv = net.rdan.upscaler[0]
    before, rows, wanted = (conv.weight.clone(), conv.bias.clone()), [], []
    inputs = []
    hook = conv.register_forward_hook(lambda _, args, __: inputs.append(F.pad(args[0], (1, 1, 1, 1))[0].numpy()))
    for lq, gt in pairs:
        error = (gt - net(lq))[0].numpy()
        seen = inputs.pop()
        for y in range(lq.shape[2]):
            for x in range(lq.shape[3]):
                top, left = (n // CELL * CELL * 4 for n in (y, x))
                cell = error[:, top : top + 4 * CELL, left : left + 4 * CELL]
                phases = np.stack([cell[:, i::4, j::4].mean((1, 2)) for i in range(4) for j in range(4)], 1)
                rows.append([*seen[:, y : y + 3, x : x + 3].ravel(), 1])
                wanted.append((phases - phases.mean(1, keepdims=True)).ravel())
    hook.remove()
    found = np.linalg.lstsq(np.array(rows, float), np.array(wanted, float), rcond=None)[0].T
    refit(net, pairs)
    np.testing.assert_allclose((conv.weight - before[0]).flatten(1), found[:, :-1], atol=1e-5)
    np.testing.assert_allclose(conv.bias - before[1], found[:, -1], atol=1e-5)


def test_the_command_leaves_the_representation_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(remove_checkerboard, "SAMPLES", 4)
    net = student()
    net.rdan.upscaler[0].bias += 0.02 * torch.randn(48)
    save_network({"params": net}, HERE, 9000, tmp_path / "a.pth")
    main([str(tmp_path / "a.pth"), "-opt", str(DEMO), "-o", str(tmp_path / "b.pth")])
    after, before = (
        float(word) for word in capsys.readouterr().out.replace(" before", "").split("of ")[1].split(",")[:2]
    )
    assert after < before / 2
    assert checkpoint.load(tmp_path / "b.pth")["mrda"] == checkpoint.load(tmp_path / "a.pth")["mrda"]
    found = network_from_file(tmp_path / "b.pth").state_dict()
    different = {name for name, value in net.state_dict().items() if not torch.equal(value, found[name])}
    assert different == {"rdan.upscaler.0.weight", "rdan.upscaler.0.bias"}


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: student(den_in_ch=6), "no student that ends in one convolution"),
        (lambda: student(upsampler="pixelshuffle"), "no student that ends in one convolution"),
        (lambda: MLN(num_feat=6, upscale=4), "no student that ends in one convolution"),
        (lambda: student(upscale=2), "scale 4, but the network's is 2"),
    ],
)
def test_what_cannot_be_refitted_is_said(tmp_path, net, message):
    save_network({"params": net()}, HERE, 9000, tmp_path / "a.pth")
    with pytest.raises(OptionError, match=message):
        main([str(tmp_path / "a.pth"), "-opt", str(DEMO), "-o", str(tmp_path / "b.pth")])
    assert not (tmp_path / "b.pth").exists()


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"b\.safetensors: must end in \.pth"):
        main(["a.pth", "-opt", str(DEMO), "-o", str(tmp_path / "b.safetensors")])


def test_crops_below_a_cell_are_refused(tmp_path):
    (tmp_path / "small.yml").write_text(re.sub(r"gt_size: \d+", "gt_size: 28", DEMO.read_text()))
    with pytest.raises(OptionError, match="gt_size 28: must be at least 32"):
        training_pairs(str(tmp_path / "small.yml"), 4)


def test_pairs_are_those_of_the_training_the_margin_of_larger_crops_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(remove_checkerboard, "SAMPLES", 8)
    larger = re.sub(r"gt_size: \d+", "gt_size: 64\n    degrade_size: 96", DEMO.read_text())
    (tmp_path / "larger.yml").write_text(larger)
    pairs = training_pairs(str(tmp_path / "larger.yml"), 4)
    opt, _ = read_options(tmp_path / "larger.yml", True, [])
    dataset = GTDataset({**opt["datasets"]["train"], "manual_seed": opt["manual_seed"]})
    for sample, (lq, gt) in enumerate(pairs):
        assert torch.equal(gt[0], dataset[sample]["gt"][:, 16:-16, 16:-16] / 255)
        assert lq.shape == (1, 3, 16, 16)
    assert len(pairs) == 8


@pytest.mark.parametrize("name", ["photo", "photo_sharp"])
@pytest.mark.parametrize("task", [{}, {"noise_sigma_255": 15.0, "gray_noise": False}, {"jpeg_quality": 60.0}])
def test_the_shipped_networks_for_photographs_draw_none(name, task):
    net, source = network_from_file(shipped_weights(f"shipped:mrda_lite_x4_{name}")), BundledSource("test")
    photographs = [centre(to_tensor(source.read(index)), 256)[None] for index in range(len(source.names))]
    lr = [photo_degrade(gt, task, 4, torch_generator(0, "noise")) for gt in photographs]
    assert grid([net(lq) for lq in lr], 4) < 2.1 * grid(photographs, 4)  # texture has that much, too
