from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_utils.errors import UserError
from scripts.export_onnx import main

TOY = {"num_feat": 5, "num_block": 1, "den_feat": 2}


def onnxruntime_runner(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return lambda inputs: session.run(None, inputs)[0]


def openvino_runner(path):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: compiled(inputs, share_outputs=False)[0]


@pytest.mark.parametrize("runner", [onnxruntime_runner, pytest.param(openvino_runner, marks=pytest.mark.openvino)])
@pytest.mark.parametrize(
    "options", [{"upscale": 3}, {"upsampler": "pixelshuffledirect", "global_residual": True}], ids=["chain", "direct"]
)
def test_the_two_files_are_the_network_at_any_size(tmp_path, capsys, runner, options):
    pytest.importorskip("onnx")
    net = MRDANet(**TOY, **options).eval().requires_grad_(False)
    save_file(net.state_dict(), tmp_path / "toy.safetensors")
    main(["-i", str(tmp_path / "toy.safetensors"), "-o", str(tmp_path / "out")])
    files = [str(tmp_path / "out" / f"toy_{half}.onnx") for half in ("encode", "restore")]
    assert capsys.readouterr().out.split() == files
    encode, restore = map(runner, files)
    for size in [(33, 21), (16, 40), (7, 9)]:
        lq = torch.rand(1, 3, *size)
        sr = restore({"lq": lq.numpy(), "idr": encode({"lq": lq.numpy()})})
        torch.testing.assert_close(torch.from_numpy(sr), net(lq), rtol=0, atol=1e-5)


def test_the_files_say_what_is_dynamic(tmp_path):
    onnx = pytest.importorskip("onnx")
    save_file(MRDANet(**TOY).state_dict(), tmp_path / "toy.safetensors")
    main(["-i", str(tmp_path / "toy.safetensors"), "-o", str(tmp_path)])
    graph = onnx.load(tmp_path / "toy_restore.onnx").graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    expected = {"lq": [1, 3, "height", "width"], "idr": [1, 8], "sr": [1, 3, "4*height", "4*width"]}
    assert shapes == expected


def test_mistakes_are_told_and_nothing_is_written(tmp_path, monkeypatch):
    save_file(MRDANet(**TOY, den_in_ch=7).state_dict(), tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match="weights of a teacher"):
        main(["-i", str(tmp_path / "teacher.safetensors"), "-o", str(tmp_path / "out")])
    save_file(MRDANet(**TOY).state_dict(), tmp_path / "toy.safetensors")
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "mrda_inference.onnx_graphs", raising=False)
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(UserError, match=r"onnx is not installed; pip install '\.\[onnx\]'"):
            main(["-i", str(tmp_path / "toy.safetensors"), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    pytest.importorskip("onnx")
    save_file(MRDANet(**TOY, modulation="da").state_dict(), tmp_path / "da.safetensors")
    with pytest.raises(UserError, match="modulation: da; only networks with rdam"):
        main(["-i", str(tmp_path / "da.safetensors"), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="cannot be written"):
        main(["-i", str(tmp_path / "toy.safetensors"), "-o", str(tmp_path / "toy.safetensors")])
