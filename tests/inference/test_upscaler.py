"""Weights, device, type and tiles of an upscaler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mrda_arch import MLN, MRDANet
from mrda_inference import network_functions, upscaler
from mrda_inference.command_line import upscale_files
from mrda_inference.upscaler import automatic_tile, fast_dtype
from mrda_utils.errors import UserError
from tests.inference.conftest import TOY, upscaled


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (MLN(num_feat=4), "weights of MLN; upscaling takes those of a student"),
        (MRDANet(**TOY, den_in_ch=5), "weights of a teacher"),
        (MRDANet(**TOY, num_in_ch=1, num_out_ch=1, den_in_ch=1), "weights for 1 channels"),
    ],
)
def test_other_weights_than_a_students_are_refused(folder, net, message):
    save_file(net.state_dict(), "other.safetensors")
    with pytest.raises(UserError, match=rf"other\.safetensors: {message}"):
        upscale_files(["-i", "photos", "-o", "out", "--weights", "other.safetensors"])


def test_tiles_come_when_memory_is_short(monkeypatch):
    net = MRDANet(num_feat=48, num_block=1, den_feat=4, upsampler="pixelshuffledirect")
    cpu = torch.device("cpu")
    monkeypatch.setattr(upscaler, "_free_memory", lambda device: 2**40)
    assert automatic_tile(net, (500, 500), cpu, 32) is None
    side = automatic_tile(net, (3000, 4000), cpu, 32)
    assert 512 < side < 1024
    monkeypatch.setattr(upscaler, "_free_memory", lambda device: 2**28)
    assert 96 <= automatic_tile(net, (500, 500), cpu, 32) < side
    monkeypatch.setattr(upscaler, "_free_memory", lambda device: 0)
    assert automatic_tile(net, (500, 500), cpu, 32) == 96


def a_gpu(monkeypatch, free=0, reserved=0, allocated=0, capability=(8, 0)):
    """A CUDA device that answers these; nothing can be computed on it."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    return torch.device("cuda", 0)


def test_on_a_gpu_tiles_follow_what_is_free_and_the_type(monkeypatch):
    net = MRDANet(num_feat=48, num_block=1, den_feat=4, upsampler="pixelshuffledirect")
    sides = (4000, 6000)

    def pixels(dtype=torch.float32, **memory):
        return automatic_tile(net, sides, a_gpu(monkeypatch, **memory), 32, dtype) ** 2

    small = pixels(free=2**31)
    assert small == pytest.approx(2**30 / (4 * 48 * 8), rel=0.01)  # half of it, eight maps of 48 channels
    assert pixels(free=2**32) == pytest.approx(2 * small, rel=0.01)
    assert pixels(torch.bfloat16, free=2**31) == pytest.approx(4 / 3 * small, rel=0.01)
    assert pixels(free=2**30, reserved=2**31, allocated=2**30) == pixels(free=2**31)  # torch's cache is free as well
    assert pixels(free=2**37) == 2048**2
    assert automatic_tile(net, (2000, 2000), a_gpu(monkeypatch, free=2**37), 32) is None


def test_on_the_cpu_the_type_changes_no_tile(monkeypatch):
    net = MRDANet(num_feat=48, num_block=1, den_feat=4, upsampler="pixelshuffledirect")
    monkeypatch.setattr(upscaler, "_free_memory", lambda device: 2**40)
    sides = {automatic_tile(net, (3000, 4000), torch.device("cpu"), 32, t) for t in (torch.float32, torch.bfloat16)}
    assert sides == {836}


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 1), torch.float32),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_the_type_is_what_the_gpu_is_fast_in(monkeypatch, capability, dtype):
    assert fast_dtype(a_gpu(monkeypatch, capability=capability)) == dtype


@pytest.mark.parametrize(
    ("arguments", "fast", "used"),
    [
        ([], torch.bfloat16, torch.bfloat16),
        (["--dtype", "float32"], torch.bfloat16, torch.float32),
        (["--dtype", "bfloat16"], torch.float32, torch.bfloat16),
        (["--backend", "onnx"], None, torch.float32),
    ],
)
def test_the_type_is_the_fast_one_unless_one_is_asked_for(bfloat16, folder, monkeypatch, arguments, fast, used):
    seen = []

    def functions(net, device_or_backend, dtype):
        seen.append(dtype)
        return network_functions(net)

    if fast:
        monkeypatch.setattr(upscaler, "fast_dtype", lambda device: fast)
    monkeypatch.setattr(upscaler, "network_functions", functions)
    monkeypatch.setattr(upscaler, "backend_functions", functions)
    assert upscaled("-i", "photos/a.png", "-o", "out", *arguments) == 0
    assert seen == [used]


@pytest.mark.parametrize("backend", ["torch", "openvino", "auto"])
def test_a_processor_that_would_emulate_bfloat16_does_not_take_it(folder, monkeypatch, capsys, backend):
    monkeypatch.setattr("mrda_utils.numerics.computes_bfloat16", lambda device: False)
    arguments = ["-i", "photos/a.png", "-o", "out", "--device", "cpu", "--backend", backend, "--dtype", "bfloat16"]
    with pytest.raises(UserError, match="--dtype bfloat16: this processor only emulates it"):
        upscaled(*arguments)
    assert not Path("out").exists()


def test_float32_is_full_float32(folder, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    upscaled("-i", "photos/a.png", "-o", "out")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
