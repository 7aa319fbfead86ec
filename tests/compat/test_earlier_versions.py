"""What earlier versions wrote, each stage at the smallest size after 3 of 6 iterations: this version goes on with it.

Beside option file, weights and state of iteration 3 there are the weights that the version had after iteration 6. They
are met bit for bit where torch and the processor's instructions are those that the files were written with; on
other machines the last digits differ. What 0.1.0 wrote does not say, and its mln_meta moved wrong weights on the CPU.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from mrda_model import training_state
from mrda_utils import checkpoint
from tests.model.conftest import STAGES, train

HERE = Path(__file__).parent
VERSIONS = ("v0.1.0", "v0.2.0")


@pytest.fixture
def stored(tmp_path, request):
    """Folder of what a version wrote, a folder for each stage."""
    folder = tmp_path / "stored"
    for stage in STAGES:
        if (HERE / request.param / stage).is_dir():
            shutil.copytree(HERE / request.param / stage, folder / stage)
        else:
            zipfile.ZipFile(HERE / request.param / f"{stage}.zip").extractall(folder / stage)
    return folder


@pytest.fixture
def experiments(tmp_path, stored):
    """Folder of the four runs, as they were after iteration 3; each stage's last weights are those of iteration 6."""
    for stage in STAGES:
        run = tmp_path / f"demo_{stage}_x4"
        for folder, name in (("training_states", "3.state"), ("models", "net_g_3.pth")):
            (run / folder).mkdir(parents=True)
            shutil.copy(stored / stage / name, run / folder)
        shutil.copy(stored / stage / "net_g_6.pth", run / "models/net_g_latest.pth")
        (run / f"{run.name}.yml").touch()
    return tmp_path


def tolerance(folder: Path) -> float:
    """How far weights may be from those that the version had; steps are of 1e-3."""
    machine = {"torch": str(torch.__version__), "cpu": torch.backends.cpu.get_cpu_capability()}
    written = folder / "machine.json"
    return 0 if written.is_file() and json.loads(written.read_text()) == machine else 2e-4


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("stored", VERSIONS, indirect=True)
def test_a_training_is_resumed_and_ends_as_it_would_have(experiments, stored, stage, request):
    text = (stored / stage / "options.yml").read_text().replace("EXPERIMENTS", str(experiments))
    folder = train(yaml.safe_load(text), "--auto_resume")
    assert training_state.load_state(folder / "training_states/6.state")["iter"] == 6
    if stage == "mln_meta" and request.node.callspec.params["stored"] == "v0.1.0":
        return
    found, expected = (
        checkpoint.load(path) for path in (folder / "models/net_g_6.pth", stored / stage / "net_g_6.pth")
    )
    for key in ("params", "params_ema"):
        for name, tensor in expected[key].items():
            torch.testing.assert_close(found[key][name], tensor, rtol=0, atol=tolerance(stored / stage))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("stored", VERSIONS, indirect=True)
def test_its_weights_load(stored, stage):
    content = checkpoint.load(stored / stage / "net_g_6.pth")
    assert content["mrda"]["iteration"] == 6
    assert checkpoint.weights_of(content, "params_ema", stored / stage / "net_g_6.pth")
