"""Programs that load weights with spandrel get what MRDANet computes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mrda_arch import MLN, MRDANet, network_from_file
from mrda_data.sources import BundledSource
from mrda_inference.upscaler import MODELS
from mrda_utils.shipped import shipped_weights

spandrel = pytest.importorskip("spandrel")
TOY = {"num_feat": 6, "num_block": 2, "den_feat": 4}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The global registry with the architecture, for one test."""
    import mrda_arch.spandrel

    registry = spandrel.MAIN_REGISTRY
    before = registry._architectures, registry._ordered, registry._by_id
    assert [support.architecture.id for support in mrda_arch.spandrel.install()] == ["MRDA"]
    yield mrda_arch.spandrel
    registry._architectures, registry._ordered, registry._by_id = before


def loaded(net, folder, name="net.safetensors"):
    if name.endswith(".pth"):
        torch.save({"params": net.state_dict(), "params_ema": net.state_dict()}, folder / name)
    else:
        save_file(net.state_dict(), folder / name)
    return spandrel.ModelLoader().load_from_file(folder / name)


@pytest.mark.parametrize("tail", ["pixelshuffle", "pixelshuffledirect"])
@pytest.mark.parametrize("upscale", [2, 3, 4])
@pytest.mark.parametrize("residual", [False, True])
def test_a_student_of_any_kind_is_found_and_computes_the_same(tmp_path, upscale, tail, residual):
    net = MRDANet(**TOY, upscale=upscale, upsampler=tail, global_residual=residual)
    model = loaded(net, tmp_path)
    assert (model.architecture.id, model.scale, model.purpose) == ("MRDA", upscale, "SR")
    assert (model.input_channels, model.output_channels, model.tags) == (3, 3, ["6nf", "2nb"])
    with torch.no_grad():
        for sides in [(11, 8), (1, 1), (2, 9), (24, 31)]:
            lq = torch.rand(1, 3, *sides)
            torch.testing.assert_close(model(lq), net(lq).clamp(0, 1), rtol=0, atol=1e-5)


def test_hyper_parameters_are_read_off_the_weights(tmp_path):
    net = MRDANet(num_in_ch=1, num_out_ch=1, den_in_ch=1, num_feat=5, num_block=12, den_feat=3, upscale=4)
    model = loaded(net, tmp_path, "net.pth")
    assert (model.input_channels, model.output_channels) == (1, 1)
    wanted = {"num_feat": 5, "num_block": 12, "den_feat": 3, "upscale": 4, "direct": False, "global_residual": False}
    assert model.model.hyperparameters == {"num_in_ch": 1, "num_out_ch": 1, **wanted}
    with torch.no_grad():
        lq = torch.rand(1, 1, 9, 7)
        torch.testing.assert_close(model(lq), net(lq).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [model.weights for model in MODELS.values()])
def test_the_shipped_students_are_the_same_in_every_precision(name):
    path = shipped_weights(name)
    model, net = spandrel.ModelLoader().load_from_file(path), network_from_file(path)
    lq = BundledSource("test").read(0)[100:124, 150:182]
    lq = torch.from_numpy(lq).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = net(lq).clamp(0, 1)
        assert expected.std() > 0.02
        torch.testing.assert_close(model(lq), expected, rtol=0, atol=1e-5)
        for dtype, tolerance in ((torch.float16, 0.01), (torch.bfloat16, 0.05)):
            sr = model.to(dtype)(lq.to(dtype))
            assert sr.dtype == dtype
            torch.testing.assert_close(sr.float(), expected, rtol=0, atol=tolerance)


def test_a_teacher_is_refused_in_words(tmp_path):
    with pytest.raises(spandrel.UnsupportedModelError, match="weights of a teacher, which needs ground truth"):
        loaded(MRDANet(**TOY, den_in_ch=7), tmp_path)


@pytest.mark.parametrize("net", [MLN(num_feat=5), MRDANet(**TOY, modulation="da")], ids=["MLN", "ablation"])
def test_other_networks_of_the_project_are_not_taken_for_a_student(tmp_path, net):
    with pytest.raises(spandrel.UnsupportedModelError):
        loaded(net, tmp_path)


def test_installed_twice_is_told_or_ignored(installed):
    with pytest.raises(spandrel.DuplicateArchitectureError):
        installed.install()
    assert installed.install(ignore_duplicates=True) == []


def test_no_other_architecture_takes_the_weights_for_its_own():
    state = MRDANet(**TOY).state_dict()
    claims = [arch.architecture.id for arch in spandrel.MAIN_REGISTRY if arch.detect(state)]
    assert claims == ["MRDA"]


def test_the_files_for_upstream_need_nothing_of_this_project(tmp_path):
    """Copied as docs/spandrel.md says, they load the shipped weights in a process that has no mrda_arch."""
    folder = tmp_path / "MRDA"
    shutil.copytree(Path(__file__).parents[2] / "mrda_arch", tmp_path / "source", ignore=shutil.ignore_patterns("__*"))
    (folder / "__arch").mkdir(parents=True)
    shutil.move(tmp_path / "source/spandrel_network.py", folder / "__arch/MRDA.py")
    text = (tmp_path / "source/spandrel.py").read_text()
    (folder / "__init__.py").write_text(text.replace("mrda_arch.spandrel_network", ".__arch.MRDA"))
    weights = shipped_weights("shipped:mrda_lite_x4_student")
    code = (
        "import sys; sys.modules.update(mrda_arch=None, mrda_utils=None, basicsr=None)\n"
        "import MRDA, spandrel; MRDA.install()\n"
        f"print(spandrel.ModelLoader().load_from_file({str(weights)!r}).scale)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "4\n", done.stderr
