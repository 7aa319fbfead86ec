from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_data.degradation.photo import photo_degrade
from mrda_inference.chosen_idr import parse
from mrda_inference.command_line import upscale_files
from mrda_inference.known_degradations import reference_crops
from mrda_inference.upscaler import MODELS
from mrda_utils.errors import OptionError
from mrda_utils.seeding import torch_generator
from mrda_utils.shipped import shipped_names

TOY = {"num_feat": 6, "num_block": 1, "den_feat": 4, "global_residual": True}


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = MRDANet(**TOY).requires_grad_(False)
    net.den.mlp[-1].weight.mul_(300)  # so that the representation shows
    save_file(net.state_dict(), "toy.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)).save("a.png")
    return net


def upscaled(*arguments) -> np.ndarray:
    assert (
        upscale_files(["--weights", "toy.safetensors", "--device", "cpu", "-i", "a.png", "-o", "o.png", *arguments])
        == 0
    )
    return np.asarray(Image.open("o.png")).astype(int)


def test_a_photograph_is_restored_as_one_of_the_chosen_degradation(net):
    lq = torch.from_numpy(np.array(Image.open("a.png"))).permute(2, 0, 1)[None] / 255
    task = {"sigma": 2.4, "jpeg_quality": 60.0}
    references = photo_degrade(reference_crops(4), task, 4, torch_generator(0, "any"))
    idr = net.den(references).mean(0, keepdim=True)
    expected = (net.rdan(lq, idr).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    chosen = upscaled("--as", "blur=2.4,jpeg=60")
    assert np.abs(chosen - expected).max() <= 1
    assert np.abs(upscaled("--overwrite") - chosen).max() > 1


def test_degradations_are_parsed_and_mistakes_named():
    assert parse("clean") == {}
    assert parse("noise=10") == {"noise_sigma_255": 10.0}
    for text, message in {
        "blurr=2": r"--as blurr=2: 'blurr' is not known; clean, or some of blur, noise, jpeg",
        "blur": r"--as blur: blur takes a number from 0\.2 to 4",
        "blur=9": r"blur takes a number from 0\.2 to 4",
        "blur=2,jpeg=nan": r"jpeg takes a number from 5 to 99",
        "blur=3,jpeg=60,blur=2": r"--as blur=3,jpeg=60,blur=2: blur is named twice",
        "clean,blur=2": r"'clean' is not known; clean, or some of blur, noise, jpeg",
    }.items():
        with pytest.raises(OptionError, match=message):
            parse(text)


@pytest.mark.parametrize("text", ["blur=2,jpeg=60", "Blur=2,JPEG=60", "blur=2, jpeg=60", " blur = 2 , jpeg =60 "])
def test_capitals_and_spaces_do_not_matter(text):
    assert parse(text) == {"sigma": 2.0, "jpeg_quality": 60.0}
    assert parse(" Clean") == {}


def test_the_command_line_says_so_too(net):
    with pytest.raises(OptionError, match="--as blurr=2: 'blurr' is not known"):
        upscale_files(["-i", "a.png", "-o", "o.png", "--as", "blurr=2"])


def test_the_list_tells_what_each_model_is_for(capsys):
    with pytest.raises(SystemExit) as stop:
        upscale_files(["--list"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert [line.split(maxsplit=1) for line in printed.splitlines()] == [
        [name, model.purpose] for name, model in MODELS.items()
    ]
    assert list(MODELS) == ["photo", "sharp", "blur"]
    assert {model.weights for model in MODELS.values()} <= set(shipped_names())
