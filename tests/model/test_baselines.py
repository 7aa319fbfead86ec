"""Networks of others beside ours, on the same LR images."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from basicsr.archs import build_network
from PIL import Image
from skimage.color import rgb2ycbcr, ycbcr2rgb

import mrda_arch  # noqa: F401
import mrda_model  # noqa: F401
from mrda_data import BenchmarkDataset
from mrda_eval.evaluation import Item, evaluate
from mrda_metric import metrics_of
from mrda_model.restorers import luma_restorer, network_restorer
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize
from tests.model.conftest import SIZE

RGB = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 4}
NETWORKS = {
    "ECBSR": {"num_in_ch": 3, "num_out_ch": 3, "num_block": 1, "num_channel": 4, "with_idt": True, "act_type": "prelu"}
    | {"scale": 4},
    "EDSR": {**RGB, "num_block": 1},
    "MSRResNet": {**RGB, "num_block": 1},
    "RCAN": {**RGB, "num_group": 1, "num_block": 1, "squeeze_factor": 2},
    "RRDBNet": {**RGB, "num_block": 1, "num_grow_ch": 2},
    "SRVGGNetCompact": {**RGB, "num_conv": 1},
    "SwinIR": {"upscale": 4, "window_size": 4, "embed_dim": 4, "depths": [2], "num_heads": [2], "img_size": 8}
    | {"upsampler": "pixelshuffle"},
    "MLN": {"num_feat": 4},
    "MRDANet": SIZE,
}
SET = {"name": "X", "type": "BenchmarkDataset", "protocol": "bicubic", "dataroot_gt": "bundled:test"}
SMALL = {"max_images": 1, "max_side": 52}  # LR of 13x13: no multiple of a window


def baseline(folder, kind, **network):
    """A section of `baselines`, its weights random, and the network."""
    torch.manual_seed(0)
    opt = {"type": kind, **NETWORKS[kind], **network}
    net = build_network(opt).eval()
    torch.save({"params": net.state_dict()}, folder / f"{kind}.pth")
    return {"network": opt, "path": str(folder / f"{kind}.pth")}, net


@pytest.fixture
def run(tmp_path):
    """Function that tests baselines; returns the results' folder."""

    def run(baselines, scale=4):
        opt = {
            "name": "b",
            "model_type": "MRDATestModel",
            "scale": scale,
            "device": "cpu",
            "datasets": {"test": {**SET, **SMALL}},
            "baselines": baselines,
            "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}}},
        }
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
        run_test(tmp_path, ["-opt", str(tmp_path / "o.yml")])
        return tmp_path / "results/b"

    return run


def test_every_method_has_its_name_in_table_csv_json_and_costs(run, tmp_path):
    baselines = {f"my {kind}": baseline(tmp_path, kind)[0] for kind in NETWORKS}
    folder = run(baselines)
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    names = ["Bicubic", *baselines]
    assert [row["method"] for row in rows] == names
    content = json.loads((folder / "metrics.json").read_text())
    assert [mean["method"] for mean in content["means"]] == names
    assert list(content["costs"]) == names
    assert set(content["weights_sha256"]) == {f"baselines.{name}.path" for name in baselines}
    report = (folder / "report.md").read_text()
    assert all(report.count(f"| {name} ") == 2 for name in names)  # metrics, costs
    for name, part in baselines.items():
        net = build_network(part["network"])
        assert content["costs"][name]["parameters"] == sum(p.numel() for p in net.parameters())
        assert content["costs"][name]["mult_adds"] > 0
        assert content["costs"][name]["seconds"] > 0


def test_a_baseline_sees_the_lr_images_of_every_other_method(run, tmp_path):
    dataset = BenchmarkDataset({**SET, **SMALL, "scale": 4, "kernel_size": 21})
    section, net = baseline(tmp_path, "RCAN")
    folder = run({"RCAN": section})
    psnr = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}})
    with torch.no_grad():
        expected = next(evaluate({"RCAN": lambda item: net(item.lq)}, dataset, psnr, torch.device("cpu"))).rows[0].value
    row = list(csv.DictReader((folder / "metrics.csv").open()))[1]
    assert float(row["value"]) == expected


@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_a_network_with_windows_sees_the_image_reflected_to_whole_windows(tmp_path, size):
    _, net = baseline(tmp_path, "SwinIR")
    lq = torch.rand(1, 3, *size)
    height, width = (4 * -(-side // 4) for side in size)
    padded = F.pad(lq, (0, width - size[1], 0, height - size[0]), "reflect")
    with torch.no_grad():
        expected = net(padded)[..., : 4 * size[0], : 4 * size[1]]
        assert torch.equal(network_restorer(net, 4)(Item(lq)), expected)


def test_a_network_of_one_channel_restores_y_and_leaves_the_colours(run, tmp_path):
    section, net = baseline(tmp_path, "ECBSR", num_in_ch=1, num_out_ch=1)
    lq = torch.rand(1, 3, 9, 14)
    expected = rgb2ycbcr(imresize(lq, 4)[0].numpy(), channel_axis=0)
    y = torch.from_numpy(rgb2ycbcr(lq[0].numpy(), channel_axis=0)[:1] / 255).float()
    with torch.no_grad():
        expected[0] = 255 * net(y[None])[0, 0].numpy()
        found = luma_restorer(network_restorer(net), 4)(Item(lq))
    np.testing.assert_allclose(found[0], ycbcr2rgb(expected, channel_axis=0), atol=1e-5)
    content = json.loads((run({"Y": section}) / "metrics.json").read_text())
    assert content["costs"]["Y"]["mult_adds"] > 180 * 320 * 9 * (1 * 4 + 4 * 4 + 4 * 16)


def test_rrdbnet_for_x2_takes_odd_images(run, tmp_path):
    section, _ = baseline(tmp_path, "RRDBNet", scale=2)
    assert "| RRDB" in (run({"RRDB": section}, scale=2) / "report.md").read_text()


def test_param_key_chooses_the_weights(run, tmp_path):
    values = []
    for key in ("params", "params_ema"):
        section, net = baseline(tmp_path, "MSRResNet")
        torch.nn.init.constant_(net.conv_last.bias, 0.2)
        torch.save({**torch.load(section["path"]), "params_ema": net.state_dict()}, section["path"])
        folder = run({"M": {**section, "param_key": key}})
        values.append(list(csv.DictReader((folder / "metrics.csv").open()))[1]["value"])
    assert values[0] != values[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"type": "RCANN"}}, "baselines.M.network: type: 'RCANN' is not known here, did you mean 'RCAN'?"),
        ({"network": {"type": "MSRResNet", "num_blok": 1}}, "unknown key 'num_blok', did you mean 'num_block'?"),
        ({"network": {"type": "MSRResNet", "num_block": "x"}}, "baselines.M.network.num_block: 'x'"),
        (
            {"network": {**NETWORKS["ECBSR"], "type": "ECBSR", "act_type": "leakyrelu"}},
            "baselines.M.network: ECBSR cannot be built: The type of activation",
        ),
        ({"network": {"type": "RCAN", "num_in_ch": 3}}, "baselines.M.network.num_out_ch: missing"),
        ({"network": {"type": "SwinIR", "upscale": 4, "depths": [2, 2], "num_heads": [2]}}, "SwinIR cannot be built"),
        ({"network": {"type": "MSRResNet", "upscale": 2}}, "baselines.M.network.upscale: 2, but scale is 4"),
        (
            {"network": {"type": "SwinIR", "window_size": 8}},
            "baselines.M.network.upscale: 2, but scale is 4",
        ),  # its default
        ({"path": "none.pth"}, "baselines.M.path: .*none.pth does not exist; put its weights there"),
        ({"network": {"type": "MSRResNet", "num_feat": 5}}, r"MSRResNet\.pth: does not fit MSRResNet: "),
        ({"network": {"type": "EDSR", **RGB}}, r"MSRResNet\.pth: does not fit EDSR: "),
        ({"weights": "x"}, "baselines.M: unknown key 'weights'"),
    ],
)
def test_a_mistake_is_told_in_one_line(run, tmp_path, change, message):
    section, _ = baseline(tmp_path, "MSRResNet")
    with pytest.raises(UserError, match=message) as caught:
        run({"M": {**section, **change}})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_damaged_file_is_named(run, tmp_path):
    section, _ = baseline(tmp_path, "MSRResNet")
    (tmp_path / "MSRResNet.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"MSRResNet\.pth: damaged"):
        run({"M": section})


@pytest.mark.parametrize("name", ["Bicubic", "Student"])
def test_the_reports_own_names_are_taken(run, tmp_path, name):
    with pytest.raises(UserError, match=rf"baselines\.{name}: the report has a row of this name"):
        run({name: baseline(tmp_path, "MSRResNet")[0]})


@pytest.mark.parametrize(
    ("kind", "network", "message"),
    [
        ("RRDBNet", {"num_in_ch": 1}, "baselines.M.network: does not run on an RGB image"),
        ("MRDANet", {"den_in_ch": 5}, "baselines.M.network: does not run on an RGB image"),  # a teacher
        ("SwinIR", {"embed_dim": 6, "num_heads": [4]}, "baselines.M.network: does not run on an RGB image"),
        ("SwinIR", {"upsampler": ""}, r"M: its output is \[1, 3, 13, 13\], not \[1, 3, 52, 52\]"),
        ("RRDBNet", {"num_out_ch": 1}, r"M: its output is \[1, 1, 52, 52\]"),
    ],
)
def test_a_network_that_does_not_give_an_sr_image_is_named(run, tmp_path, kind, network, message):
    with pytest.raises(UserError, match=message):
        run({"M": baseline(tmp_path, kind, **network)[0]})
    assert not (tmp_path / "results/b/report.md").exists()


def test_a_baseline_without_a_finite_output_is_named(run, tmp_path):
    section, net = baseline(tmp_path, "MSRResNet")
    for convolution in (net.conv_first, net.conv_hr, net.conv_last):
        convolution.weight.data *= 1e20  # finite, its output is not
    torch.save(net.state_dict(), section["path"])
    with pytest.raises(UserError, match=r"M on X chelsea\.png bicubic: the output is not finite"):
        run({"M": section})


def test_panels_have_a_picture_of_each_baseline(run, tmp_path):
    folder = run({"A": baseline(tmp_path, "MSRResNet")[0], "B": baseline(tmp_path, "EDSR")[0]})
    panel = Image.open(next((folder / "panels").rglob("*.png")))
    assert panel.width == 5 * 256 + 4 * 4  # LR, bicubic, A, B, GT
