from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from mrda_arch import MLN, MRDANet
from mrda_model import training_state
from mrda_model.weights import Provenance, load_network, save_network
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import UserError

HERE = Provenance("MLNMetaModel", 4, "type bicubic")


def net(seed=0, **kwargs):
    torch.manual_seed(seed)
    return MLN(num_feat=4, **kwargs)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(("param_key", "seed"), [("params", 1), ("params_ema", 2)])
def test_round_trip(tmp_path, param_key, seed):
    path = tmp_path / "models" / "net_g_1.pth"
    save_network({"params": net(1), "params_ema": net(2)}, HERE, 1, path)
    loaded = net()
    load_network(loaded, path, param_key)
    assert same(loaded, net(seed))
    assert [p.name for p in path.parent.iterdir()] == ["net_g_1.pth"]


def test_basicsr_reads_our_files(tmp_path):
    from basicsr.models.base_model import BaseModel

    path = tmp_path / "net_g_1.pth"
    save_network({"params": net(1), "params_ema": net(2)}, HERE, 1, path)
    model, loaded = BaseModel({"num_gpu": 0, "is_train": False}), net()
    model.load_network(loaded, str(path), True, "params_ema")
    assert same(loaded, net(2))


def wrapped(state_dict):
    loaded = net()
    loaded.load_state_dict(state_dict)
    return loaded


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"params": s},
        lambda s: {"params": {f"module.{k}": v for k, v in s.items()}},
        lambda s: torch.compile(wrapped(s)).state_dict(),
        lambda s: {"params_ema": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    ],
    ids=["bare", "params", "module prefix", "compiled", "compiled and distributed"],
)
def test_foreign_layouts_are_accepted(tmp_path, wrap):
    torch.save(wrap(net(1).state_dict()), tmp_path / "w.pth")
    loaded = net()
    load_network(loaded, tmp_path / "w.pth")
    assert same(loaded, net(1))


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def write_damaged(kind, path):
    save_network({"params": net()}, HERE, 1, path)
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("hello")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "evil":
        torch.save({"params": Evil()}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "no weights":
        torch.save({"params": {"a": 1}}, path)
    elif kind == "missing":
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "pickle", "evil", "list", "no weights", "missing"])
def test_a_useless_file_is_named_and_nothing_runs(tmp_path, kind, capsys):
    path = tmp_path / "w.pth"
    write_damaged(kind, path)
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        load_network(net(), path)
    assert "executed" not in capsys.readouterr().out


def test_weights_of_another_stage_or_scale_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    save_network({"params": net()}, HERE, 1, path)
    with pytest.raises(CheckpointError, match="stage MLNMetaModel, expected MLNBicubicModel"):
        load_network(net(), path, stage="MLNBicubicModel")
    with pytest.raises(CheckpointError, match="scale 4, the option file says 2"):
        load_network(net(upscale=2), path)


def test_the_scale_of_a_student_is_compared_too(tmp_path):
    small = {"num_feat": 4, "num_block": 1, "den_feat": 2}
    save_network({"params": MRDANet(**small, upscale=2)}, HERE._replace(scale=2), 1, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="scale 2, the option file says 4"):
        load_network(MRDANet(**small), tmp_path / "w.pth")


def test_weights_of_another_degradation_are_refused(tmp_path):
    save_network({"params": net()}, HERE, 1, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="degradation 'type bicubic', the option file says 'type isotropic'"):
        load_network(net(), tmp_path / "w.pth", degradation="type isotropic")


def save_as_safetensors(weights, path, degradation="type bicubic", about=None):
    origin = {**HERE._replace(degradation=degradation)._asdict(), "iteration": 7}
    checkpoint.save_safetensors(weights, origin, about or {}, path)


def test_safetensors_keep_every_bit_and_where_they_come_from(tmp_path):
    path, weights = tmp_path / "models" / "w.safetensors", net(1).state_dict()
    save_as_safetensors(weights, path, about={"title": "two\nlines"})
    content = checkpoint.load(path)
    assert content["params"].keys() == weights.keys()
    assert all(torch.equal(content["params"][name], tensor) for name, tensor in weights.items())
    assert content["mrda"] == {**HERE._asdict(), "iteration": 7}
    assert checkpoint.metadata(path)["title"] == "two\nlines"
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_safetensors_are_refused_for_the_same_reasons(tmp_path):
    path = tmp_path / "w.safetensors"
    save_as_safetensors(net(1).state_dict(), path)
    loaded = net()
    load_network(loaded, path, stage="MLNMetaModel", degradation="type bicubic")
    assert same(loaded, net(1))
    with pytest.raises(CheckpointError, match="stage MLNMetaModel, expected MLNBicubicModel"):
        load_network(net(), path, stage="MLNBicubicModel")
    with pytest.raises(CheckpointError, match="degradation 'type bicubic', the option file says 'type isotropic'"):
        load_network(net(), path, degradation="type isotropic")
    with pytest.raises(CheckpointError, match="scale 4, the option file says 2"):
        load_network(net(upscale=2), path)


def test_safetensors_without_provenance_serve_any_stage(tmp_path):
    safetensors.torch.save_file(net(1).state_dict(), tmp_path / "w.safetensors")
    loaded = net()
    load_network(loaded, tmp_path / "w.safetensors", stage="MLNMetaModel")
    assert same(loaded, net(1))


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "pickle", "evil", "missing", "folder", "huge header"])
def test_a_useless_safetensors_file_is_named_in_one_line(tmp_path, kind, capsys):
    path = tmp_path / "w.safetensors"
    if kind == "truncated":
        save_as_safetensors(net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge header":
        path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    else:
        write_damaged(kind, path)
    with pytest.raises(CheckpointError, match=r"w\.safetensors: ") as info:
        load_network(net(), path)
    assert "\n" not in str(info.value)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "origin", ['{"stage": "MLNMetaModel"}', "[]", "no JSON", "3", '{"stage":0,"scale":4,"degradation":1}']
)
def test_a_provenance_that_makes_no_sense_is_refused(tmp_path, origin):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(net().state_dict(), path, {checkpoint.PROVENANCE_KEY: origin})
    with pytest.raises(CheckpointError, match=r"w\.safetensors: .*(makes no sense|is no JSON)"):
        load_network(net(), path)


def test_a_failed_write_of_safetensors_leaves_nothing(tmp_path):
    (tmp_path / "models").touch()
    with pytest.raises(UserError, match=r"models/w\.safetensors: cannot be written"):
        save_as_safetensors(net().state_dict(), tmp_path / "models" / "w.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


def test_a_foreign_state_is_refused(tmp_path):
    torch.save({"epoch": 1, "iter": 1, "optimizers": [], "schedulers": []}, tmp_path / "1.state")
    with pytest.raises(CheckpointError, match=r"1\.state: no training state of this project"):
        training_state.load_state(tmp_path / "1.state")


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(content, file):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({}, tmp_path / "w.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "models").touch()
    with pytest.raises(UserError, match=r"models/w\.pth: cannot be written"):
        checkpoint.save({}, tmp_path / "models" / "w.pth")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(net().state_dict(), path)
    with pytest.raises(CheckpointError, match="does not fit MLN"):
        load_network(MLN(num_feat=5), path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    checkpoint.save({"a": torch.ones(3)}, path)
    before = path.read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"w\.pth: cannot be written .*No space left"):
        checkpoint.save({"a": torch.zeros(3)}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_states_are_sorted_by_iteration_and_other_names_ignored(tmp_path):
    for name in ("5.state", "100.state", "20.state", "best.state", ".7.state.1.tmp", "x.pth"):
        (tmp_path / name).touch()
    assert [p.name for p in training_state.states(tmp_path)] == ["100.state", "20.state", "5.state"]
    assert training_state.states(tmp_path / "nowhere") == []


def test_buffers_are_saved(tmp_path):
    layer = nn.BatchNorm1d(2)
    layer.running_mean.fill_(3)
    save_network({"params": layer}, HERE, 1, tmp_path / "w.pth")
    assert checkpoint.load(tmp_path / "w.pth")["params"]["running_mean"].tolist() == [3, 3]
