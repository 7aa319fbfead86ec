"""Files for other programs compute what the network computes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mrda_arch import MRDANet, network_from_file
from mrda_data.sources import BundledSource
from mrda_inference.upscaler import MODELS
from mrda_utils.errors import UserError
from mrda_utils.shipped import shipped_weights
from scripts.export_onnx import export, main

TOY = {"num_feat": 5, "num_block": 1, "den_feat": 2}
SIZES = [(1, 33, 21), (3, 16, 40), (2, 7, 9), (1, 64, 48), (4, 5, 31)]


def onnxruntime_runner(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return lambda inputs: session.run(None, inputs)[0]


def openvino_runner(path):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: compiled(inputs, share_outputs=False)[0]


def saved(folder, **options):
    """A toy network and its file."""
    net = MRDANet(**TOY, **options).eval().requires_grad_(False)
    save_file(net.state_dict(), folder / "toy.safetensors")
    return net, str(folder / "toy.safetensors")


runners = pytest.mark.parametrize(
    "runner", [onnxruntime_runner, pytest.param(openvino_runner, marks=pytest.mark.openvino)]
)
tails = pytest.mark.parametrize(
    "options", [{"upscale": 3}, {"upsampler": "pixelshuffledirect", "global_residual": True}], ids=["chain", "direct"]
)


@runners
@tails
def test_one_file_is_the_network_at_any_size_and_number(tmp_path, capsys, runner, options):
    pytest.importorskip("onnx")
    net, weights = saved(tmp_path, **options)
    main(["-i", weights, "-o", str(tmp_path / "out")])
    file = str(tmp_path / "out/toy.onnx")
    assert capsys.readouterr().out == f"{file} is written\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["toy.onnx"]
    run = runner(file)
    for count, *sides in SIZES:
        lq = torch.rand(count, 3, *sides)
        torch.testing.assert_close(torch.from_numpy(run({"input": lq.numpy()})), net(lq), rtol=0, atol=1e-5)


@runners
@pytest.mark.parametrize("model", MODELS)
def test_a_shipped_student_in_half_precision_is_close(tmp_path, runner, model):
    pytest.importorskip("onnx")
    name = MODELS[model].weights
    (whole,), (half,) = (export(name, tmp_path, kind) for kind in ("whole", "fp16"))
    assert half.name == f"{name.removeprefix('shipped:')}_fp16.onnx"
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    run, net = runner(str(half)), network_from_file(shipped_weights(name))
    photograph = torch.from_numpy(BundledSource("test").read(0)).permute(2, 0, 1)[None] / 255
    for height, width in [(24, 32), (33, 21), (48, 48), (16, 50), (9, 7)]:
        lq = photograph[:, :, 100 : 100 + height, 150 : 150 + width]
        sr = run({"input": lq.numpy()})
        assert sr.dtype == np.float32
        mse = float(np.square(sr - net(lq).numpy()).mean())
        assert 10 * np.log10(1 / mse) > 50


@runners
@tails
def test_two_halves_are_the_network(tmp_path, capsys, runner, options):
    pytest.importorskip("onnx")
    net, weights = saved(tmp_path, **options)
    main(["-i", weights, "-o", str(tmp_path / "out"), "--halves"])
    files = [str(tmp_path / "out" / f"toy_{half}.onnx") for half in ("encode", "restore")]
    assert capsys.readouterr().out.splitlines() == [f"{file} is written" for file in files]
    encode, restore = map(runner, files)
    for size in [(33, 21), (16, 40), (7, 9)]:
        lq = torch.rand(1, 3, *size)
        sr = restore({"lq": lq.numpy(), "idr": encode({"lq": lq.numpy()})})
        torch.testing.assert_close(torch.from_numpy(sr), net(lq), rtol=0, atol=1e-5)


def test_the_files_say_what_is_dynamic_and_what_they_hold(tmp_path):
    onnx = pytest.importorskip("onnx")
    _, weights = saved(tmp_path)
    main(["-i", weights, "-o", str(tmp_path / "new/mine.onnx")])
    main(["-i", weights, "-o", str(tmp_path), "--halves"])

    def shapes(graph):
        values = [*graph.input, *graph.output]
        return {v.name: [size.dim_param or size.dim_value for size in v.type.tensor_type.shape.dim] for v in values}

    whole = onnx.load(tmp_path / "new/mine.onnx")
    assert shapes(whole.graph) == {
        "input": ["batch", 3, "height", "width"],
        "output": ["batch", 3, "4*height", "4*width"],
    }
    expected = {"lq": [1, 3, "height", "width"], "idr": [1, 8], "sr": [1, 3, "4*height", "4*width"]}
    assert shapes(onnx.load(tmp_path / "toy_restore.onnx").graph) == expected
    about = {entry.key: entry.value for entry in whole.metadata_props}
    assert (about["scale"], about["license"], about["author"]) == ("4", "Apache-2.0", "The MRDA plugin authors")
    assert (about["modelspec.architecture"], about["modelspec.title"]) == ("MRDANet", "toy")


# ------------------------------------------------------------------------------------------------------------- ncnn
@pytest.mark.parametrize(
    "options",
    [{"upscale": 2}, {"upscale": 4, "upsampler": "pixelshuffledirect", "global_residual": True}],
    ids=["chain", "direct"],
)
def test_the_plain_graph_is_the_network_down_to_two_pixels(options):
    pytest.importorskip("onnx")
    from mrda_inference.onnx_graphs import onnx_plain

    net = MRDANet(**TOY, **options).eval().requires_grad_(False)
    run = onnxruntime_runner(onnx_plain(net).SerializeToString())
    for size in [(33, 21), (16, 40), (7, 9), (2, 2), (2, 31)]:
        lq = torch.rand(1, 3, *size)
        torch.testing.assert_close(torch.from_numpy(run({"input": lq.numpy()})), net(lq), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"upscale": 3}, {"upsampler": "pixelshuffledirect", "global_residual": True}])
def test_ncnn_computes_the_network_at_any_size(tmp_path, options):
    ncnn = pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    net, weights = saved(tmp_path, **options)
    main(["-i", weights, "-o", str(tmp_path / "toy-x4.param"), "--ncnn"])
    assert {path.name for path in tmp_path.iterdir()} == {"toy.safetensors", "toy-x4.param", "toy-x4.bin"}
    model = ncnn.Net()
    for precision in ("fp16_storage", "fp16_arithmetic", "fp16_packed", "bf16_storage"):
        setattr(model.opt, f"use_{precision}", False)
    assert model.load_param(str(tmp_path / "toy-x4.param")) == model.load_model(str(tmp_path / "toy-x4.bin")) == 0
    for _, *sides in SIZES:
        lq = torch.rand(3, *sides)
        extractor = model.create_extractor()
        extractor.input("data", ncnn.Mat(lq.numpy()).clone())
        _, sr = extractor.extract("output")
        torch.testing.assert_close(torch.from_numpy(np.array(sr)), net(lq[None])[0], rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- mistakes
def test_mistakes_are_told_and_nothing_is_written(tmp_path, monkeypatch):
    save_file(MRDANet(**TOY, den_in_ch=7).state_dict(), tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match="weights of a teacher"):
        main(["-i", str(tmp_path / "teacher.safetensors"), "-o", str(tmp_path / "out")])
    _, weights = saved(tmp_path)
    with monkeypatch.context() as patch:
        for module in ("onnx_graphs", "onnx_nodes", "ncnn_files"):
            patch.delitem(sys.modules, f"mrda_inference.{module}", raising=False)
        patch.setitem(sys.modules, "onnx", None)
        for kind, extra in (([], "onnx"), (["--ncnn"], "ncnn")):
            with pytest.raises(UserError, match=rf'onnx is not installed; pip install "\.\[{extra}\]"'):
                main(["-i", weights, "-o", str(tmp_path / "out"), *kind])
    assert not (tmp_path / "out").exists()
    pytest.importorskip("onnx")
    for kind, name, accepted in (
        ("halves", "a.onnx", "a folder$"),
        ("ncnn", "a.onnx", "a folder or a file in .param$"),
    ):
        with pytest.raises(UserError, match=f"a.onnx: name {accepted}"):
            export(weights, tmp_path / name, kind)
    save_file(MRDANet(**TOY, modulation="da").state_dict(), tmp_path / "da.safetensors")
    for kind in ([], ["--halves"]):
        with pytest.raises(UserError, match="modulation: da; only networks with rdam"):
            main(["-i", str(tmp_path / "da.safetensors"), "-o", str(tmp_path / "out"), *kind])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="cannot be written"):
        main(["-i", weights, "-o", weights])
