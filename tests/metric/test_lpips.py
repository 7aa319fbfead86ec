from __future__ import annotations

import math
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.metrics import calculate_metric

from mrda_metric import calculate_lpips
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import UserError

LAYERS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}  # out, in, kernel


def alexnet(seed=0):
    """AlexNet's convolutions in torchvision's names, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for i, (out_ch, in_ch, k) in LAYERS.items():
        state[f"features.{i}.weight"] = torch.randn(out_ch, in_ch, k, k, generator=generator) / (in_ch * k * k) ** 0.5
        state[f"features.{i}.bias"] = 0.1 * torch.randn(out_ch, generator=generator)
    return state


@pytest.fixture
def weights(tmp_path):
    torch.save(alexnet(), tmp_path / "alexnet.pth")
    return str(tmp_path / "alexnet.pth")


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (75, 64, 3), dtype=np.uint8) for _ in range(2)]


def reference(a, b, trunk):
    """LPIPS from its formula: weighted squared differences of unit-length features, averaged over places, summed."""
    heads = torch.load(Path(find_spec("lpips").origin).parent / "weights/v0.1/alex.pth", "cpu", weights_only=True)
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))

    def features(bgr):
        x = torch.from_numpy(bgr[..., ::-1].astype(np.float32)).permute(2, 0, 1) / 255
        x, maps = ((2 * x - 1 - shift) / scale)[None], []
        for i, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            x = F.max_pool2d(x, 3, 2) if i in (3, 6) else x
            x = F.conv2d(x, trunk[f"features.{i}.weight"], trunk[f"features.{i}.bias"], stride, padding).relu()
            maps.append(x[0] / x[0].square().sum(0).sqrt())
        return maps

    total = 0
    for i, (one, other) in enumerate(zip(features(a), features(b), strict=True)):
        total += (heads[f"lin{i}.model.1.weight"].flatten()[:, None, None] * (one - other) ** 2).sum(0).mean()
    return float(total)


def test_it_equals_its_formula(weights, pair):
    assert calculate_lpips(*pair, 0, weights) == pytest.approx(reference(*pair, alexnet()), abs=1e-6)
    cropped = [image[4:-4, 4:-4] for image in pair]
    assert calculate_lpips(*pair, 4, weights) == pytest.approx(reference(*cropped, alexnet()), abs=1e-6)
    assert calculate_lpips(pair[0], pair[0], 0, weights) == 0


def test_it_stands_in_basicsrs_registry(weights, pair):
    opt = {"type": "calculate_lpips", "crop_border": 0, "weights": weights}
    assert calculate_metric({"img": pair[0], "img2": pair[1]}, opt) == calculate_lpips(*pair, 0, weights) > 0


def test_torchs_cache_is_the_default_place(tmp_path, monkeypatch, pair):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    torch.save({**alexnet(1), "classifier.1.weight": torch.zeros(1)}, path)
    assert calculate_lpips(*pair, 0) == pytest.approx(reference(*pair, alexnet(1)), abs=1e-6)


def test_without_weights_one_line_says_where_to_put_which_file(tmp_path, monkeypatch, pair):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("a download was tried"))
    with pytest.raises(UserError) as caught:
        calculate_lpips(*pair, 0)
    assert str(caught.value) == (
        f"LPIPS, 'weights': no weights of alexnet, {tmp_path}/hub/checkpoints/alexnet-owt-7be5be79.pth does not exist; "
        "`python scripts/fetch_perceptual_weights.py` fetches them; or put "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth there, or name a file"
    )
    with pytest.raises(UserError, match=r"nowhere\.pth does not exist; .*put https.* there"):
        calculate_lpips(*pair, 0, "nowhere.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"features.3.bias": None}, {"features.3.bias": torch.zeros(7)}])
def test_a_file_that_is_no_alexnet_is_refused_whole(tmp_path, pair, change):
    state = {**alexnet(), **change}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: no AlexNet of torchvision"):
        calculate_lpips(*pair, 0, str(tmp_path / "w.pth"))


def test_it_draws_no_random_number(weights, pair):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    calculate_lpips(*pair, 0, weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("side", "too_small"), [(31, False), (30, True)])
def test_an_image_too_small_for_alexnet_has_no_value(weights, side, too_small):
    image = np.random.default_rng(0).integers(0, 256, (side + 8, 64, 3), dtype=np.uint8)
    assert math.isnan(calculate_lpips(image, image[::-1], 4, weights)) == too_small
