"""The authors' released weights, in made-up form: the documented keys and shapes with random values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mrda_arch import MLN, MRDANet
from mrda_model.frozen import build_frozen
from mrda_model.weights import Provenance, load_network, save_network
from mrda_options import read_options
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import run
from mrda_utils.resize import imresize
from scripts.convert_official import from_official, main, official_names, to_official

ROOT = Path(__file__).resolve().parents[2]
MEAN = (0.4488, 0.4371, 0.4040)
KINDS = ("student", "teacher", "mln")
SMALL = {"c": 8, "blocks": 2, "w": 4, "mln_c": 6}
FULL = {"c": 64, "blocks": 27, "w": 64, "mln_c": 128}


def documented_shapes(kind, scale, *, c, blocks, w, mln_c):
    """Keys and shapes as the released files have them; a layer of weight and bias is given by its weight."""
    width = mln_c if kind == "mln" else c
    growth = {2: (4,), 3: (9,), 4: (4, 4)}[scale]
    tail = {f"tail.0.{2 * i}": (factor * width, width, 3, 3) for i, factor in enumerate(growth)}
    tail["tail.1"] = (3, width, 3, 3)
    if kind == "mln":
        body = {f"body.{i}": (width, width, 3, 3) for i in range(0, 11, 2)}
        return {"head.0": (width, 3, 3, 3), **body, **tail}
    den, den_in = {"student": ("E_st", 3), "teacher": ("E", mln_c)}[kind]
    widths = (den_in, w, w, 2 * w, 2 * w, 4 * w, 4 * w)
    shapes = {"G.head.0": (c, 3, 3, 3), "G.compress.0": (c, 4 * w), "G.body.1": (c, c, 3, 3)}
    for block in range(blocks):
        for i in (1, 2):
            at = f"G.body.0.body.{block}"
            shapes[f"{at}.da_conv{i}.kernel.0"] = (c, c)
            shapes[f"{at}.da_conv{i}.kernel.2"] = (9 * c, c)
            shapes[f"{at}.da_conv{i}.conv"] = (1, c, 1, 1)
            shapes[f"{at}.conv{i}"] = (c, c, 3, 3)
    shapes |= {f"G.{name}": shape for name, shape in tail.items()}
    shapes |= {f"{den}.E.{2 * i}": (widths[i + 1], widths[i], 3, 3) for i in range(6)}
    return shapes | {f"{den}.mlp.{i}": (4 * w, 4 * w) for i in (0, 2)}


def released(kind, scale, **sizes):
    """A bare state dict with these keys; random values that keep activations in range."""
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, shape in documented_shapes(kind, scale, **sizes).items():
        fan_in = torch.Size(shape[1:]).numel()
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * fan_in**-0.5
        if "kernel" not in name and "compress" not in name:
            state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    if kind != "mln":
        for name, sign in (("sub_mean", -1), ("add_mean", 1)):
            state[f"G.{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
            state[f"G.{name}.bias"] = sign * torch.tensor(MEAN)
    return state


# ------------------------------------------------------------------- the networks, written from the documented keys
def conv(state, name, x, stride=1):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)


def lrelu(x):
    return F.leaky_relu(x, 0.1)


def upscale(state, prefix, x, scale):
    for i, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[scale]):
        x = F.pixel_shuffle(conv(state, f"{prefix}tail.0.{2 * i}", x), factor)
    return conv(state, f"{prefix}tail.1", x)


def mln_forward(state, lq, scale):
    x = lrelu(conv(state, "head.0", lq))
    for i in range(0, 11, 2):
        x = lrelu(conv(state, f"body.{i}", x))
    return upscale(state, "", x, scale) + imresize(lq, scale)


def degradation_aware(state, name, x, condition):
    """One image at a time and one channel at a time."""
    images = []
    for image, code in zip(x, condition, strict=True):
        kernels = state[f"{name}.kernel.2.weight"] @ lrelu(state[f"{name}.kernel.0.weight"] @ code)
        channels = [
            F.conv2d(image[None, c : c + 1], kernels[9 * c : 9 * c + 9].view(1, 1, 3, 3), padding=1)
            for c in range(len(image))
        ]
        images.append(lrelu(torch.cat(channels, 1)))
    return torch.sigmoid(conv(state, f"{name}.conv", x)) * torch.cat(images) + x


def net_forward(state, kind, lq, seen, scale):
    den = {"student": "E_st", "teacher": "E"}[kind]
    for i, stride in enumerate((1, 1, 2, 1, 2, 1)):
        seen = lrelu(conv(state, f"{den}.E.{2 * i}", seen, stride))
    idr = seen.mean((2, 3))
    idr = lrelu(F.linear(idr, state[f"{den}.mlp.0.weight"], state[f"{den}.mlp.0.bias"]))
    idr = F.linear(idr, state[f"{den}.mlp.2.weight"], state[f"{den}.mlp.2.bias"])
    condition = lrelu(idr @ state["G.compress.0.weight"].T)
    head = conv(state, "G.head.0", conv(state, "G.sub_mean", lq))
    x = head
    block = 0
    while f"G.body.0.body.{block}.conv1.weight" in state:
        at, y = f"G.body.0.body.{block}", x
        for i in (1, 2):
            y = lrelu(degradation_aware(state, f"{at}.da_conv{i}", y, condition))
            y = conv(state, f"{at}.conv{i}", y)
            y = lrelu(y) if i == 1 else y
        x, block = y + x, block + 1
    x = conv(state, "G.body.1", x) + head
    return conv(state, "G.add_mean", upscale(state, "G.", x, scale))


# --------------------------------------------------------------------------------------------------------- the gates
def ours(kind, scale, *, c, blocks, w, mln_c):
    if kind == "mln":
        return MLN(num_feat=mln_c, upscale=scale)
    den_in_ch = mln_c if kind == "teacher" else 3
    return MRDANet(num_feat=c, num_block=blocks, den_feat=w, den_in_ch=den_in_ch, upscale=scale)


@pytest.mark.parametrize(("scale", "sizes"), [(2, SMALL), (3, SMALL), (4, SMALL), (4, FULL)], ids=lambda x: str(x)[:8])
@pytest.mark.parametrize("kind", KINDS)
def test_converted_weights_compute_what_the_documented_layers_compute(kind, scale, sizes, tmp_path):
    state = released(kind, scale, **sizes)
    torch.save(state, tmp_path / "model.pt")
    from_official(tmp_path / "model.pt", tmp_path / "out.pth")
    net = ours(kind, scale, **sizes)
    load_network(net, tmp_path / "out.pth")
    net, state = net.double(), {name: tensor.double() for name, tensor in state.items()}
    if kind != "mln":  # the buffer is float32's mean, doubled; so is the state's
        assert net.rdan.mean.flatten().tolist() == state["G.add_mean.bias"].tolist()
    lq = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    with torch.no_grad():
        if kind == "mln":
            expected, found = mln_forward(state, lq, scale), net(lq)
        else:
            seen = lq if kind == "student" else torch.randn(2, sizes["mln_c"], 9, 7, dtype=torch.float64)
            expected, found = net_forward(state, kind, lq, seen, scale), net(lq, seen)
    assert found.shape == (2, 3, 9 * scale, 7 * scale)
    assert found.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_way_there_and_back_is_bit_identical(kind, scale, tmp_path):
    state = released(kind, scale, **SMALL)
    torch.save(state, tmp_path / "model.pt")
    from_official(tmp_path / "model.pt", tmp_path / "out.pth")
    to_official(tmp_path / "out.pth", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    from_official(tmp_path / "back.pt", tmp_path / "again.pth")
    first, second = (checkpoint.load(tmp_path / name) for name in ("out.pth", "again.pth"))
    assert all(torch.equal(t, second["params"][name]) for name, t in first["params"].items())


def test_the_way_back_takes_the_averaged_weights(tmp_path):
    nets = {"params": ours("mln", 4, **SMALL), "params_ema": ours("mln", 4, **SMALL)}
    save_network(nets, Provenance("MLNMetaModel", 4, "x"), 1, tmp_path / "w.pth")
    to_official(tmp_path / "w.pth", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert torch.equal(back["head.0.weight"], nets["params_ema"].body[0].weight)


def test_at_full_size_names_and_shapes_are_the_documented_ones():
    for kind in KINDS:
        with torch.device("meta"):
            net = ours(kind, 4, **FULL)
        shapes = {name: tuple(t.shape) for name, t in net.named_parameters()}
        names = official_names(list(shapes), "MLN" if kind == "mln" else kind)
        found = {names[name].removesuffix(".weight"): s for name, s in shapes.items() if name.endswith("weight")}
        assert found == documented_shapes(kind, 4, **FULL)


def test_a_converted_student_runs_in_the_gaussian8_test_at_once(tmp_path):
    torch.save(released("student", 4, **FULL), tmp_path / "model.pt")
    from_official(tmp_path / "model.pt", tmp_path / "out.pth")
    opt, _ = read_options(ROOT / "options/test_gaussian8_x4.yml", False, [])
    net = build_frozen(opt["network_g"], str(tmp_path / "out.pth"), "MRDAStudentModel", torch.device("cpu"))
    assert net.upscale == 4
    with pytest.raises(CheckpointError, match="weights of stage MRDAStudentModel, expected MRDATeacherModel"):
        build_frozen(opt["network_t"], str(tmp_path / "out.pth"), "MRDATeacherModel", torch.device("cpu"))


def test_an_unknown_degradation_hinders_no_stage(tmp_path):
    torch.save(released("mln", 4, **SMALL), tmp_path / "model.pt")
    from_official(tmp_path / "model.pt", tmp_path / "out.pth")
    net = ours("mln", 4, **SMALL)
    load_network(net, tmp_path / "out.pth", stage="MLNMetaModel", degradation="type isotropic")
    stored = checkpoint.load(tmp_path / "out.pth")["params"]
    assert all(torch.equal(tensor, stored[name]) for name, tensor in net.state_dict().items())


def without(*names):
    return lambda state: {key: t for key, t in state.items() if key not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("G.body.1.bias"), r"model\.pt: missing: G\.body\.1\.bias$"),
        (lambda s: {**s, "G.body.2.bias": s["G.body.1.bias"]}, r"unknown: G\.body\.2\.bias$"),
        (without("G.sub_mean.weight"), r"missing: G\.sub_mean\.weight"),
        (without("G.tail.0.0.weight"), r"a student without G\.tail\.0\.0\.weight"),
        (without("E_st.E.0.weight"), "neither student, teacher nor MLN"),
        (lambda s: {**s, "G.sub_mean.bias": -s["G.sub_mean.bias"]}, r"G\.sub_mean\.bias is not the mean shift"),
        (lambda s: {**s, "G.add_mean.weight": 2 * s["G.add_mean.weight"]}, r"G\.add_mean\.weight is not the mean"),
        (lambda s: {**s, "G.tail.1.bias": torch.zeros(4)}, r"G\.tail\.1\.bias \(4,\) torch.float32 instead of \(3,\)"),
        (lambda s: {k: t.half() for k, t in s.items()}, "torch.float16 instead of .* and .* more"),
        (lambda s: {**s, "G.tail.0.0.weight": torch.zeros(40, 8, 3, 3)}, "upscales by none of 2, 3 and 4"),
    ],
)
def test_anything_else_is_refused_by_name_and_nothing_is_written(change, message, tmp_path):
    torch.save(change(released("student", 4, **SMALL)), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        from_official(tmp_path / "model.pt", tmp_path / "out.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("change", [{"global_residual": True}, {"upsampler": "pixelshuffledirect"}])
def test_what_their_layout_cannot_hold_is_refused(change, tmp_path):
    net = MRDANet(num_feat=8, num_block=1, den_feat=2, **change)
    save_network({"params": net}, Provenance("MRDAStudentModel", 4, "x"), 1, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth"):
        to_official(tmp_path / "w.pth", tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()


def test_the_command_converts_and_says_what_it_found(tmp_path, monkeypatch, capsys):
    torch.save(released("teacher", 3, **SMALL), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)

    def convert(*arguments):
        monkeypatch.setattr("sys.argv", ["convert_official.py", *arguments])
        run(main)
        return capsys.readouterr().out

    assert convert("model.pt", "-o", "out.pth").startswith("out.pth: teacher x3, ")
    content = checkpoint.load(tmp_path / "out.pth")
    assert content["mrda"] == {"stage": "MRDATeacherModel", "scale": 3, "degradation": None, "iteration": 0}
    assert convert("out.pth", "-o", "back.pt", "--reverse").startswith("back.pt: teacher x3, ")
    with pytest.raises(SystemExit, match="2"):
        convert("nowhere.pt", "-o", "new.pth")
    assert capsys.readouterr().err == "error: nowhere.pt: cannot be read (No such file or directory)\n"
