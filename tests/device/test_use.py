"""What else computes on a device: whole runs, resumed ones, validation, tests, the upscaler."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_arch.collapse import collapsed
from mrda_data import BenchmarkDataset
from mrda_inference import command_line
from mrda_inference.tiling import network_functions, upscale
from mrda_pipeline.validation import validate
from mrda_utils import checkpoint
from tests.device.test_training import ALL_STAGES, GAN, LAST, TWO_STEPS, build
from tests.model.conftest import SIZE, stage_options, train
from tests.model.test_test_routes import SET, hr, run, weights  # noqa: F401  (fixtures)

METRICS = {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}}


def final_weights(run_folder):
    content = checkpoint.load(run_folder / "models/net_g_latest.pth")
    return torch.cat([tensor.flatten() for key in ("params", "params_ema") for tensor in content[key].values()])


def teacher(device, chain, experiments, total_iter, *flags, **changes):
    """Folder of a teacher's run up to `total_iter` on the device, or on the CPU for None."""
    size = {"datasets__train__gt_size": 32, "train__total_iter": total_iter}
    changes = {"path__experiments_root": str(experiments)} | TWO_STEPS | size | changes
    with device or nullcontext():
        option = device.option if device else "cpu"
        return train(stage_options("teacher", chain, device=option, **changes), *flags)


def test_a_resumed_run_is_the_uninterrupted_one(device, chain, tmp_path):
    how = LAST | GAN
    whole = teacher(device, chain, tmp_path / "whole", 4, **how)
    teacher(device, chain, tmp_path / "cut", 2, **how)
    cut = teacher(device, chain, tmp_path / "cut", 4, "--auto_resume", **how)
    # bit for bit; but the backward pass of the discriminator's bilinear upsampling adds in any order on CUDA
    exact = 0 if device.name == "mock" else 5e-5
    torch.testing.assert_close(final_weights(cut), final_weights(whole), rtol=0, atol=exact)


@pytest.fixture(scope="module")
def whole(chain, tmp_path_factory):
    """Weights of the uninterrupted run on the CPU."""
    torch.set_num_threads(1)
    return final_weights(teacher(None, chain, tmp_path_factory.mktemp("whole"), 4))


@pytest.mark.parametrize(
    ("first", "last", "then"),
    [("cpu", False, "device"), ("device", True, "cpu"), ("device", False, "device"), ("device", True, "device")],
)
def test_a_run_goes_on_elsewhere_in_the_other_memory_format(device, chain, whole, tmp_path, first, last, then):
    places = {"cpu": None, "device": device}
    teacher(places[first], chain, tmp_path, 2, train__channels_last=last)
    cut = teacher(places[then], chain, tmp_path, 4, "--auto_resume", train__channels_last=not last)
    rounding = 5e-5 if device.name == "mock" else 1e-4  # a step moves a weight by up to 1e-3
    torch.testing.assert_close(final_weights(cut), whole, rtol=0, atol=rounding)


@pytest.mark.parametrize("stage", ALL_STAGES)
def test_validation_measures_what_it_does_on_the_cpu(device, chain, tmp_path, stage):
    opt = {"name": "X", "dataroot_gt": "bundled:test", "protocol": "gaussian8", "max_images": 1, "max_side": 48}
    dataset = BenchmarkDataset(opt | {"scale": 4, "kernel_size": 9 if stage == "kernel" else 21})
    with device:
        model, _ = build(stage, chain, tmp_path, device=device.option, val={"val_freq": 100, "metrics": METRICS})
        model.opt["datasets"]["val"] = dataset.opt
        found = validate(model, dataset, 1, None)
    model, _ = build(stage, chain, tmp_path, val={"val_freq": 100, "metrics": METRICS})
    model.opt["datasets"]["val"] = dataset.opt
    assert found == pytest.approx(validate(model, dataset, 1, None), abs=0.01)  # dB, of outputs rounded to 8 bits


def test_a_test_reports_what_it_does_on_the_cpu(device, run, hr):  # noqa: F811
    data = {"test": {**SET, "dataroot_gt": str(hr), "protocol": "bicubic"}}
    with device:
        _, found, _ = run("device", data, METRICS, device=device.option)
    _, expected, _ = run("cpu", data, METRICS)
    assert [row[:5] for row in found] == [row[:5] for row in expected]  # bicubic, student, teacher
    for row, other in zip(found[1:], expected[1:], strict=True):
        assert float(row[5]) == pytest.approx(float(other[5]), abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
def test_an_image_in_tiles_is_that_of_the_cpu(device, dtype, upsampler):
    torch.manual_seed(0)
    net, lq = MRDANet(**SIZE, upsampler=upsampler), torch.rand(1, 3, 20, 26)
    expected = upscale(lq, *network_functions(net, "cpu", dtype), 4, tile=16, overlap=4)
    with device:
        found = upscale(lq, *network_functions(net, device.name, dtype), 4, tile=16, overlap=4)
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.02)


def test_the_upscaler_writes_what_it_does_on_the_cpu(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(MRDANet(**SIZE).state_dict(), "toy.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 4), dtype=np.uint8)).save("a.png")
    flags = ["--weights", "toy.safetensors", "-i", "a.png", "-o"]
    with device:
        assert command_line.upscale_files([*flags, "device.png", "--device", device.name]) == 0
    assert command_line.upscale_files([*flags, "cpu.png", "--device", "cpu"]) == 0
    found, expected = (np.asarray(Image.open(name)).astype(int) for name in ("device.png", "cpu.png"))
    assert np.abs(found - expected).max() <= 1


def test_upscaling_needs_no_float64_on_the_device(device, monkeypatch):
    """Apple's MPS has none; what a network is made of there is made on the CPU, the collapsed upscaler included."""
    if device.name != "mock":
        pytest.skip("the mock can do without float64")
    claim = device.module.MockTensor.__new__

    def without_float64(cls, inner):
        assert inner.dtype != torch.float64
        return claim(cls, inner)

    net = MRDANet(**SIZE, upscale=2).eval()
    lq = torch.rand(1, 3, 40, 30)
    monkeypatch.setattr(device.module.MockTensor, "__new__", staticmethod(without_float64))
    with device:
        sr = upscale(lq.to(device.name), *network_functions(net, device.name), 2, tile=24, overlap=8)
        upscaler = net.rdan.upscaler.to(device.name)
        kernels = collapsed(upscaler, 2).kernels.cpu()
    assert sr.isfinite().all()
    assert kernels.isfinite().all()
