"""What version 0.1.0 wrote, each stage at the smallest size after 3 of 6 iterations: this version goes on with it.

Beside option file, weights and state of iteration 3 there are the weights that 0.1.0 itself had after iteration 6. On
other processors the last digits differ.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from mrda_utils import checkpoint
from tests.model.conftest import STAGES, train

STORED = Path(__file__).parent / "v0.1.0"


@pytest.fixture
def experiments(tmp_path):
    """Folder of the four runs, as they were after iteration 3; each stage's last weights are those of iteration 6."""
    for stage in STAGES:
        run = tmp_path / f"demo_{stage}_x4"
        for folder, name in (("training_states", "3.state"), ("models", "net_g_3.pth")):
            (run / folder).mkdir(parents=True)
            shutil.copy(STORED / stage / name, run / folder)
        shutil.copy(STORED / stage / "net_g_6.pth", run / "models/net_g_latest.pth")
        (run / f"{run.name}.yml").touch()
    return tmp_path


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_of_0_1_0_is_resumed_and_ends_as_it_would_have(experiments, stage):
    text = (STORED / stage / "options.yml").read_text().replace("EXPERIMENTS", str(experiments))
    folder = train(yaml.safe_load(text), "--auto_resume")
    assert checkpoint.load_state(folder / "training_states/6.state")["iter"] == 6
    if stage == "mln_meta":
        return  # 0.1.0 moved wrong weights on the CPU
    found, expected = (
        checkpoint.load(path) for path in (folder / "models/net_g_6.pth", STORED / stage / "net_g_6.pth")
    )
    for key in ("params", "params_ema"):
        for name, tensor in expected[key].items():
            torch.testing.assert_close(found[key][name], tensor, rtol=0, atol=2e-4)  # of steps of 1e-3


@pytest.mark.parametrize("stage", STAGES)
def test_its_weights_load(stage):
    content = checkpoint.load(STORED / stage / "net_g_6.pth")
    assert content["mrda"]["iteration"] == 6
    assert checkpoint.weights_of(content, "params_ema", STORED / stage / "net_g_6.pth")
