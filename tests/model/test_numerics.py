"""tf32, deterministic and cudnn_benchmark reach torch; its switches are there on a CPU as well."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import yaml

from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from mrda_utils.errors import run
from mrda_utils.numerics import set_numerics
from scripts import ablation
from tests.model.conftest import stage_options, train

TEST = {
    "name": "numerics",
    "model_type": "MRDATestModel",
    "scale": 4,
    "device": "cpu",
    "datasets": {
        "test": {"name": "X", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "bicubic"}
        | {"max_images": 1, "max_side": 48}
    },
    "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
    "panels": 0,
}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """Switches that this module leaves as it found them; each test begins with those that no run should leave."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32 = True
    yield
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)


def switches() -> dict:
    return {
        "tf32": torch.backends.cudnn.allow_tf32,
        "matmul tf32": torch.backends.cuda.matmul.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn deterministic": torch.backends.cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


FULL = {"tf32": False, "matmul tf32": False, "benchmark": False}
FREE = {"cudnn deterministic": False, "deterministic": False, "cublas": None}
FIXED = {"cudnn deterministic": True, "deterministic": True, "cublas": ":4096:8"}
CASES = [
    ({}, FULL | FREE | {"tf32": True, "benchmark": True}, FULL | FREE),
    ({"tf32": False}, FULL | FREE | {"benchmark": True}, FULL | FREE),
    ({"tf32": True}, FULL | FREE | {"tf32": True, "benchmark": True}, FULL | FREE | {"tf32": True}),
    ({"cudnn_benchmark": False}, FULL | FREE | {"tf32": True}, FULL | FREE),
    ({"cudnn_benchmark": True}, FULL | FREE | {"tf32": True, "benchmark": True}, FULL | FREE | {"benchmark": True}),
    ({"deterministic": True}, FULL | FIXED | {"tf32": True}, FULL | FIXED),
    ({"deterministic": True, "cudnn_benchmark": True}, FULL | FIXED | {"tf32": True}, FULL | FIXED),
]


@pytest.mark.parametrize(("options", "in_training", "in_a_test"), CASES)
def test_the_options_reach_torch(tmp_path, options, in_training, in_a_test):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(tf32|TF32|precision)")
        train(stage_options("mln_bicubic", tmp_path, train__total_iter=1, **options))
        assert switches() == in_training
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
        (tmp_path / "t.yml").write_text(yaml.safe_dump(TEST | options))
        run_test(tmp_path, ["-opt", str(tmp_path / "t.yml")])
        assert switches() == in_a_test


def test_off_means_off_by_either_name_that_torch_has_for_it():
    set_numerics(tf32=False)
    assert torch.get_float32_matmul_precision() == "highest"
    if hasattr(torch.backends.cudnn, "conv"):
        precisions = {torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision}
        assert precisions <= {"none", "ieee"}


def test_a_choice_of_cublas_workspace_is_kept(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_numerics(deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("stage", ["mln_meta", "student"])
def test_deterministic_changes_nothing_on_a_cpu(chain, tmp_path, stage):
    found = []
    for deterministic in (False, True):
        root = str(tmp_path / str(deterministic))
        opt = stage_options(stage, chain, path__experiments_root=root, deterministic=deterministic)
        if stage == "student":
            opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
            opt["train"] |= {"optim_d": {"lr": 1e-4}, "gan_opt": {"type": "GANLoss"}, "total_iter": 3}
        weights = torch.load(train(opt) / "models/net_g_latest.pth", weights_only=True)
        found.append(weights["params"])
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


def test_an_operation_that_is_not_deterministic_ends_in_one_line(capsys):
    def main():
        set_numerics(deterministic=True)
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: deterministic: true, but torch says 'put_ does not have a deterministic impl")
    assert shown.count("\n") == 1


def test_an_ablation_is_measured_in_full_float32(monkeypatch, tmp_path):
    monkeypatch.setattr(ablation, "BenchmarkDataset", lambda opt: None)
    monkeypatch.setattr(ablation, "weights_path", lambda options, root: root / "setup.py")
    monkeypatch.setattr(ablation, "restorer", lambda *args: None)
    monkeypatch.setattr(ablation, "evaluate", lambda *args: [])
    ablation.measure({"name": "x", "device": "cpu"}, "X", "bundled:test", "gaussian8", tmp_path)
    assert switches() == FULL | FREE
