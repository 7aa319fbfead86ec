from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from mrda_arch import MLN, MRDANet, network_from_file
from mrda_model.weights import Provenance, save_network
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from scripts.convert_weights import main

TOY = {"num_feat": 6, "num_block": 2, "den_feat": 4, "upsampler": "pixelshuffledirect", "global_residual": True}
HERE = Provenance("MRDAStudentModel", 4, "type isotropic, sigma [0.2, 4.0]")


def write_pth(path, net, **others):
    save_network({"params": net, **others}, HERE, 9000, path)
    return path


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


def test_there_and_back_not_a_bit_changes(tmp_path):
    latest, averaged = MRDANet(**TOY), MRDANet(**TOY)
    averaged.to(memory_format=torch.channels_last)
    write_pth(tmp_path / "a.pth", latest, params_ema=averaged)
    main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.safetensors")])
    main([str(tmp_path / "b.safetensors"), "-o", str(tmp_path / "c.pth")])
    main([str(tmp_path / "c.pth"), "-o", str(tmp_path / "d.safetensors"), "--title", "b"])
    first, back = checkpoint.load(tmp_path / "a.pth"), checkpoint.load(tmp_path / "c.pth")
    assert same_bits(back["params_ema"], first["params_ema"])
    assert same_bits(back["params"], first["params_ema"])
    assert back["mrda"] == first["mrda"]
    assert same_bits(checkpoint.load(tmp_path / "d.safetensors")["params"], first["params_ema"])
    assert checkpoint.metadata(tmp_path / "d.safetensors") == checkpoint.metadata(tmp_path / "b.safetensors")
    # both keys, yet the tensors are in the file once
    assert (tmp_path / "c.pth").stat().st_size < 0.6 * (tmp_path / "a.pth").stat().st_size


def test_half_precision_halves_the_file_and_rounds_each_weight(tmp_path):
    net = MRDANet(**{**TOY, "num_feat": 48})
    write_pth(tmp_path / "a.pth", net)
    main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "whole.safetensors")])
    main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "half.safetensors"), "--fp16"])
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = network_from_file(tmp_path / "half.safetensors")
    for name, weight in net.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == weight.dtype
        torch.testing.assert_close(found, weight, rtol=2**-11, atol=2**-25)  # of 11 bits, or of the smallest number


def test_the_metadata_say_what_the_file_holds(tmp_path):
    write_pth(tmp_path / "a.pth", MRDANet(**TOY))
    main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "lite.safetensors")])
    with safe_open(tmp_path / "lite.safetensors", "pt") as file:
        about = file.metadata()
    assert about["modelspec.architecture"] == "MRDANet"
    assert about["modelspec.title"] == "lite"
    assert about["modelspec.license"] == "Apache-2.0"
    assert json.loads(about["mrda.provenance"]) == {**HERE._asdict(), "iteration": 9000}
    network = json.loads(about["mrda.network"])
    assert network.pop("type") == "MRDANet"
    assert network == {**network, **TOY, "upscale": 4, "den_in_ch": 3}
    MRDANet(**network)


@pytest.mark.parametrize("net", [MLN(num_feat=5, upscale=3), MRDANet(num_feat=4, num_block=1, den_feat=2, den_in_ch=5)])
def test_a_bare_state_dict_of_mln_or_teacher_converts_too(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "a.pth")
    main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.safetensors")])
    loaded = network_from_file(tmp_path / "b.safetensors")
    assert type(loaded) is type(net)
    assert same_bits(loaded.state_dict(), net.state_dict())
    assert not loaded.training
    assert "mrda" not in checkpoint.load(tmp_path / "b.safetensors")


def test_basicsr_reads_the_pth(tmp_path):
    from basicsr.models.base_model import BaseModel

    net = MRDANet(**TOY)
    write_pth(tmp_path / "a.pth", MRDANet(**TOY), params_ema=net)
    main([str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.safetensors")])
    main([str(tmp_path / "b.safetensors"), "-o", str(tmp_path / "c.pth")])
    for key in ("params", "params_ema"):
        loaded = MRDANet(**TOY)
        BaseModel({"num_gpu": 0, "is_train": False}).load_network(loaded, str(tmp_path / "c.pth"), True, key)
        assert same_bits(loaded.state_dict(), net.state_dict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pth", "-o", "b.onnx"], "-o b.onnx: must end in .pth or .safetensors"),
        (["a.pth", "-o", "a.pth"], "-o a.pth: is the file to convert"),
        (["missing.pth", "-o", "b.safetensors"], "missing.pth: cannot be read"),
        (["foreign.pth", "-o", "b.safetensors"], "foreign.pth: no weights of MRDANet or MLN; body.0.weight is missing"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_pth(tmp_path / "a.pth", MRDANet(**TOY))
    torch.save({"conv.weight": torch.zeros(3)}, "foreign.pth")
    with pytest.raises(UserError, match=message):
        main(arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "foreign.pth"]


def test_shipped_weights_are_named_as_everywhere(tmp_path, capsys):
    main(["shipped:mrda_lite_x4_student", "-o", str(tmp_path / "student.pth")])
    assert "MRDANet x4" in capsys.readouterr().out
    with pytest.raises(UserError, match="shipped:none: no such weights; known: "):
        main(["shipped:none", "-o", str(tmp_path / "none.pth")])
