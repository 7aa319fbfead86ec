from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_inference import backend_functions, backends, network_functions, upscale
from mrda_inference.command_line import upscale_files
from mrda_utils.errors import UserError
from mrda_utils.files import user_cache
from mrda_utils.resize import imresize

TOY = {"num_feat": 6, "num_block": 2, "den_feat": 4}
DIRECT = {**TOY, "upsampler": "pixelshuffledirect", "global_residual": True}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(params=["onnx", pytest.param("openvino", marks=pytest.mark.openvino)])
def backend(request):
    """Name of a backend that is installed."""
    pytest.importorskip("onnx")
    pytest.importorskip(PACKAGES[request.param])
    return request.param


def network(**options):
    torch.manual_seed(0)
    return MRDANet(**options).eval().requires_grad_(False)


def base_alone(**options):
    """A network that gives its bicubic base."""
    net = network(**options)
    for p in net.rdan.upscaler.parameters():
        torch.nn.init.zeros_(p)
    return net


@pytest.mark.parametrize(
    "options",
    [{**TOY, "upscale": 2}, {**TOY, "upscale": 4}, {**DIRECT, "upscale": 2}, {**DIRECT, "upscale": 4}],
    ids=["x2", "x4", "direct x2", "direct x4"],
)
def test_a_backend_gives_the_networks_image_at_any_size(backend, options):
    net = network(**options)
    functions = backend_functions(net, backend)
    for size in [(37, 53), (16, 24), (5, 11), (3, 3)]:
        lq = torch.rand(1, 3, *size)
        sr, idr = net(lq, return_idr=True)
        torch.testing.assert_close(functions[0](lq), idr, rtol=0, atol=1e-6)
        torch.testing.assert_close(upscale(lq, *functions, net.upscale), sr, rtol=0, atol=1e-5)


def test_the_image_depends_on_the_representation(backend):
    _, restore = backend_functions(network(**TOY), backend)
    lq = torch.rand(1, 3, 9, 9)
    assert (restore(lq, torch.zeros(1, 16)) - restore(lq, torch.full((1, 16), 9.0))).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_base_is_imresize_down_to_one_pixel(backend, scale):
    encode, restore = backend_functions(base_alone(**DIRECT, upscale=scale), backend)
    for size in [(1, 1), (1, 6), (2, 3), (15, 8)]:
        lq = torch.rand(1, 3, *size)
        torch.testing.assert_close(restore(lq, encode(lq)), imresize(lq, scale), rtol=0, atol=1e-6)


def test_tiles_share_the_representation_of_the_whole_image(backend):
    net, lq = network(**TOY), torch.rand(1, 3, 50, 37)
    encode, restore = backend_functions(net, backend)
    idrs = []

    def watched(lq, idr):
        idrs.append(idr)
        return restore(lq, idr)

    found = upscale(lq, encode, watched, 4, tile=24, overlap=8)
    assert len(idrs) > 4
    assert all(torch.equal(idr, encode(lq)) for idr in idrs)
    torch.testing.assert_close(found, upscale(lq, *network_functions(net), 4, tile=24, overlap=8), rtol=0, atol=1e-5)


def test_a_result_outlives_the_next_one(backend):
    encode, _ = backend_functions(network(**TOY), backend)
    first = encode(torch.zeros(1, 3, 8, 8))
    kept = first.clone()
    encode(torch.ones(1, 3, 8, 8))
    assert torch.equal(first, kept)


@pytest.mark.openvino
def test_openvino_in_bfloat16_is_close_and_keeps_the_bicubic_base_exact():
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    lq = torch.rand(1, 3, 20, 27)
    for net, tolerance in [(network(**DIRECT), 3e-2), (base_alone(**DIRECT), 1e-6)]:
        found = upscale(lq, *backend_functions(net, "openvino", torch.bfloat16), 4)
        torch.testing.assert_close(found, net(lq), rtol=0, atol=tolerance)


# ------------------------------------------------------------------------------------------------ which one is faster
@pytest.fixture
def clock(monkeypatch):
    """Seconds that each backend takes, and which ones were measured."""
    seconds, measured = {"torch": 2.0, "openvino": 1.0}, []
    monkeypatch.setattr(backends, "_seconds", lambda net, name: measured.append(name) or seconds[name])
    monkeypatch.setattr(backends, "version", lambda package: "1.0")
    return seconds, measured


def test_the_faster_backend_is_taken_and_measured_once(clock):
    seconds, measured = clock
    for _ in range(2):
        assert backends.automatic_backend(network(**TOY)) == "openvino"
    assert measured == ["torch", "openvino"]
    seconds["openvino"] = 3.0
    assert backends.automatic_backend(network(**DIRECT)) == "torch"  # another kind of network
    assert backends.automatic_backend(network(**TOY)) == "openvino"
    assert len(measured) == 4


def test_a_new_version_is_measured_again(clock, monkeypatch):
    backends.automatic_backend(network(**TOY))
    monkeypatch.setattr(backends, "version", lambda package: "2.0")
    backends.automatic_backend(network(**TOY))
    assert len(clock[1]) == 4


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "{" * 100])
def test_a_damaged_memory_is_measured_again(clock, content):
    path = user_cache() / "backends.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert backends.automatic_backend(network(**TOY)) == "openvino"
    assert backends.automatic_backend(network(**TOY)) == "openvino"
    assert len(clock[1]) == 2


def test_a_cache_that_cannot_be_written_is_done_without(clock, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert backends.automatic_backend(network(**TOY)) == "openvino"


def test_auto_is_a_choice_of_the_program(bfloat16, folder, clock):
    assert upscaled("-o", "auto.png", "--backend", "auto", "--dtype", "bfloat16") == 0  # torch alone was asked
    assert not clock[1]
    clock[0]["torch"] = 0.5
    assert upscaled("-o", "auto.png", "--backend", "auto", "--overwrite") == 0
    assert clock[1] == ["torch", "openvino"]
    assert upscaled("-o", "torch.png", "--device", "cpu") == 0
    assert Path("auto.png").read_bytes() == Path("torch.png").read_bytes()


def test_without_openvino_or_maps_it_is_torch(clock, monkeypatch):
    assert backends.automatic_backend(network(**TOY, modulation="da")) == "torch"

    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(backends, "version", missing)
    assert backends.automatic_backend(network(**TOY)) == "torch"
    assert not clock[1]


@pytest.mark.openvino
def test_both_are_measured():
    pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    net = network(**TOY)
    assert backends.automatic_backend(net) in ("torch", "openvino")
    assert list(json.loads((user_cache() / "backends.json").read_text()).values()) == [backends.automatic_backend(net)]


# ------------------------------------------------------------------------------------------------------ the program
@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Working directory with a photograph and the weights of a toy network."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.png")
    save_file(network(**TOY).state_dict(), "toy.safetensors")
    return tmp_path


def upscaled(*arguments):
    return upscale_files(["--weights", "toy.safetensors", "-i", "a.png", *arguments])


def test_the_program_writes_the_same_photograph(folder, backend):
    assert upscaled("-o", "torch.png", "--device", "cpu") == 0
    assert upscaled("-o", "other.png", "--backend", backend) == 0
    torchs, other = (np.asarray(Image.open(name)).astype(int) for name in ("torch.png", "other.png"))
    assert torchs.shape == (48, 36, 3)
    assert np.abs(torchs - other).max() <= 1


def test_too_small_an_image_is_told(folder, backend, capsys):
    Image.new("RGB", (9, 2)).save("a.png")
    assert upscaled("-o", "out", "--backend", backend) == 1
    assert "error: an image or tile of 9x2 pixels; below 3 take --backend torch" in capsys.readouterr().err
    assert upscaled("-o", "out", "--device", "cpu") == 0


@pytest.mark.parametrize("modulation", ["da", "da_vanilla"])
def test_a_modulation_that_has_no_graph_is_told(folder, backend, modulation):
    save_file(network(**TOY, modulation=modulation).state_dict(), "toy.safetensors")
    message = rf"^modulation: {modulation}; only networks with rdam become ONNX graphs, take --backend torch$"
    with pytest.raises(UserError, match=message):
        upscaled("-o", "out", "--backend", backend)
    assert not Path("out").exists()
    assert upscaled("-o", "out", "--device", "cpu") == 0


@pytest.mark.parametrize(
    ("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("openvino", "onnx")]
)
def test_a_missing_extra_is_named(folder, monkeypatch, backend, package):
    if package != "onnx":
        pytest.importorskip("onnx")
    monkeypatch.delitem(sys.modules, "mrda_inference.onnx_graphs", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf'^{package} is not installed; pip install "\.\[{backend}\]"$'):
        upscaled("-o", "out", "--backend", backend)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "onnx", "--dtype", "bfloat16"], "--dtype bfloat16: --backend onnx computes in float32"),
        (["--backend", "openvino", "--dtype", "float16"], "--dtype float16: takes a GPU"),
        (["--backend", "openvino", "--device", "cuda"], "--device cuda: --backend openvino computes on the CPU"),
    ],
)
def test_what_a_backend_cannot_do_is_refused(folder, arguments, message):
    with pytest.raises(UserError, match=message):
        upscaled("-o", "out", *arguments)
    assert not Path("out").exists()
