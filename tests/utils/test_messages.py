"""What a user is told who takes the wrong file, program or value."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mrda_arch import MLN, MRDANet
from mrda_model.weights import load_network
from mrda_options import process, read_options
from mrda_pipeline.chain import Chain, read_runs
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import OptionError, UserError

ROOT = Path(__file__).resolve().parents[2]
TRAIN, TEST = ROOT / "options/demo/train_teacher_x4.yml", ROOT / "options/test_gaussian8.yml"
CHAIN = ROOT / "options/demo/chain.yml"


@pytest.mark.parametrize(
    ("path", "is_train", "forced", "message"),
    [
        (TEST, True, [], "a test's option file; run 'python test.py -opt {path}'"),
        (TRAIN, False, [], "a training's option file; run 'python train.py -opt {path}'"),
        (CHAIN, True, [], "a chain of trainings; run 'python scripts/train_chain.py -opt {path}'"),
        (TRAIN, True, ["val:metrics:psnr:type=calculate_PSNR"], "did you mean 'calculate_psnr'?"),
        (TEST, False, ["datasets:test_potos=null"], "'test_potos' is not there, did you mean 'test_photos'?"),
        (TEST, False, ["device=gpu"], "device: 'gpu'"),
    ],
)
def test_the_right_file_program_or_value_is_named(path, is_train, forced, message):
    with pytest.raises(OptionError, match=re.escape(message.format(path=path))):
        read_options(path, is_train, forced)


@pytest.mark.parametrize("content", [{"model_type": "SRModel"}, {"model_type": "OurModel", "num_gpu": 1}])
def test_an_option_file_of_basicsrs_own_is_told_how_it_is_used(tmp_path, content):
    (tmp_path / "train_RRDB.yml").write_text(yaml.safe_dump({"name": "x", **content}))
    with pytest.raises(OptionError, match=r"of BasicSR's own \(model_type \w+\); .*, with 'import mrda_"):
        read_options(tmp_path / "train_RRDB.yml", True, [])


def test_an_option_file_of_one_stage_is_no_chain():
    with pytest.raises(OptionError, match=re.escape(f"a training's option file; run 'python train.py -opt {TRAIN}'")):
        read_runs(TRAIN, Chain, "-opt")


def test_null_takes_a_data_set_or_a_metric_out():
    opt, _ = read_options(TEST, False, ["datasets:test_set5=null", "val:metrics:ssim=null"])
    whole, _ = read_options(TEST, False, [])
    assert opt["datasets"].keys() == whole["datasets"].keys() - {"test_set5"}
    assert opt["val"]["metrics"].keys() == whole["val"]["metrics"].keys() - {"ssim"}


NETWORK = {"num_feat": 8, "num_block": 1, "den_feat": 2}


@pytest.mark.parametrize(
    ("stored", "net", "message"),
    [
        (MLN(num_feat=4), MLN(num_feat=8), "MLN: num_feat is 4 in the file, 8 in the options"),
        (
            MRDANet(**NETWORK),
            MRDANet(**{**NETWORK, "num_feat": 12, "num_block": 2}),
            "MRDANet: num_feat is 8 in the file, 12 in the options; num_block is 1 in the file, 2 in the options",
        ),
        (MLN(num_feat=4), MRDANet(**NETWORK), "MRDANet: Missing key"),
    ],
)
def test_weights_of_another_size_are_told_by_the_option_that_differs(tmp_path, stored, net, message):
    torch.save(stored.state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"does not fit {re.escape(message)}"):
        load_network(net, tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("device", "world_size", "message"),
    [
        ("cuda:1", 1, None),
        ("cuda:2", 1, "device: 'cuda:2', but there are 2 GPUs"),
        ("cuda:1", 2, "device: 'cuda:1', but 2 processes take a GPU each"),
    ],
)
def test_one_gpu_may_be_chosen_by_its_number(monkeypatch, device, world_size, message):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name, value in (("WORLD_SIZE", world_size), ("RANK", 0), ("LOCAL_RANK", 0)):
        monkeypatch.setenv(name, str(value))
    assert read_options(TRAIN, True, [f"device={device}"])[0]["device"] == device
    if message:
        with pytest.raises(UserError, match=re.escape(message)):
            process.start("none", device, 10)
    else:
        assert process.start("none", device, 10).device == torch.device("cuda", 1)
        assert chosen == [1]


def test_a_gpu_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(UserError, match="device: 'cuda:1', but torch sees no CUDA device"):
        process.start("none", "cuda:1", 10)


SCRIPTS = sorted(path.name for path in ROOT.glob("scripts/*.py"))
SHOW_HELP = """
import contextlib, io, pathlib, runpy, sys
root = pathlib.Path(sys.argv[1])
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.path[:] = [entry for entry in sys.path if not (pathlib.Path(entry or ".") / "mrda_utils").exists()]
for name in sys.argv[2:]:
    del sys.argv[1:]
    sys.argv.append("--help")
    text = io.StringIO()
    before = [*sys.path]
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        runpy.run_path(str(root / "scripts" / name), run_name="__main__")
    assert "show this help" in text.getvalue(), (name, text.getvalue())
    sys.path[:] = before
    print(name, text.getvalue().count("default"))
"""


def test_every_script_runs_in_a_clone_that_is_not_installed_and_says_its_defaults(tmp_path):
    command = [sys.executable, "-I", "-c", SHOW_HELP, str(ROOT), *SCRIPTS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    defaults = dict(line.split() for line in done.stdout.splitlines())
    assert list(defaults) == SCRIPTS
    assert int(defaults["figures.py"]) == 0  # its figures have them
    assert all(
        int(defaults[name]) > 0 for name in ("ablation.py", "complexity.py", "draw_kernels.py", "prepare_data.py")
    )


def test_mrda_arch_can_be_imported_after_basicsr_could_not():
    code = """
import importlib
try:
    import basicsr
except ImportError as error:
    print("failed:", error)
import mrda_arch
from basicsr.archs import build_network
print(type(build_network({"type": "MRDANet", "num_block": 1})).__name__, type(build_network({"type": "EDSR",
      "num_in_ch": 3, "num_out_ch": 3, "num_block": 1})).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1:] == ["MRDANet EDSR"], done.stderr[-2000:]
