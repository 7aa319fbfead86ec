"""Whatever has become of a checkpoint file is noticed and told in one line; the good one before it is taken."""

from __future__ import annotations

import random
import shutil

import pytest
import torch

from mrda_model import training_state
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError
from tests.engine.conftest import events
from tests.model.conftest import stage_options, train
from tests.reliability.processes import assert_nothing_lost, end, output_file, same_content, start

SLOW = pytest.mark.slow


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def lose_a_bit(path, draw):
    """Flip one bit of a tensor: torch.load says nothing, and gives another number."""
    data, before = path.read_bytes(), checkpoint.load(path)
    while True:
        path.write_bytes(flipped(data, draw.randrange(8 * len(data))))
        try:
            if not same_content(torch.load(path, weights_only=True), before):
                return
        except Exception:
            continue


def write_foreign(path, draw):
    torch.save({"epoch": 1, "iter": 6, "optimizers": [], "schedulers": []}, path)


DAMAGES = {
    "truncated": lambda path, draw: path.write_bytes(path.read_bytes()[: draw.randrange(1, path.stat().st_size)]),
    "empty": lambda path, draw: path.write_bytes(b""),
    "one bit flipped": lose_a_bit,
    "zeros in place of a block": lambda path, draw: path.write_bytes(path.read_bytes()[:-4096] + bytes(4096)),
    "deleted": lambda path, draw: path.unlink(),
    "foreign": write_foreign,
}

TOLD = {"deleted": "cannot be read (No such file or directory)", "foreign": "no training state of this project"}


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=SLOW)])
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("training_states/6.state", "truncated"),
        ("training_states/6.state", "empty"),
        ("training_states/6.state", "one bit flipped"),
        ("training_states/6.state", "zeros in place of a block"),
        ("training_states/6.state", "foreign"),
        ("models/net_g_6.pth", "truncated"),
        ("models/net_g_6.pth", "one bit flipped"),
        ("models/net_g_6.pth", "deleted"),
    ],
)
def test_auto_resume_tells_of_a_bad_file_and_takes_the_checkpoint_before_it(
    chain, tmp_path, faults, capsys, file, damage, times
):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    run, draw = tmp_path / opt["name"], random.Random(times)
    for _ in range(times):
        shutil.copytree(chain / opt["name"], run)
        DAMAGES[damage](run / file, draw)
        with faults.fault(f"{'state' if 'state' in file else 'weights'} {damage}"):
            train(opt, "--auto_resume")
            told = capsys.readouterr().out
            assert told.count("looking for an earlier state") == 1
            assert f"{run / file}: {TOLD.get(damage, 'damaged, or no file of tensors')}" in told
            told = [event["event"] for event in events(run) if event["event"] != "log"]
            assert told[-4:] == ["fallback", "resume", "save", "end"]
            assert_nothing_lost(run, chain / opt["name"])
        shutil.rmtree(run)


@pytest.mark.parametrize("times", [100, pytest.param(3000, marks=SLOW)])
def test_a_flipped_bit_is_refused_or_changes_nothing(chain, tmp_path, faults, times):
    """Some bits of a zip file mean nothing; a flip of any other must not get through."""
    path, draw = tmp_path / "w.pth", random.Random(times)
    data = (chain / "demo_mln_bicubic_x4/models/net_g_6.pth").read_bytes()
    before = checkpoint.load(chain / "demo_mln_bicubic_x4/models/net_g_6.pth")
    refused = 0
    for _ in range(times):
        path.write_bytes(flipped(data, draw.randrange(8 * len(data))))
        faults.injected("any bit of a file flipped")
        try:
            assert same_content(checkpoint.load(path), before)
        except CheckpointError:
            refused += 1
        faults.survived("any bit of a file flipped")
    assert refused > times / 2


def test_files_without_checksums_are_loaded(tmp_path):
    """Foreign ones: of the time before torch wrote zip files, or written without."""
    content = {"params": {"a": torch.arange(3)}}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, tmp_path / "without.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    for name in ("old.pth", "without.pth"):
        assert same_content(checkpoint.load(tmp_path / name), content)


WRONG = {
    "stage": ({"stage": "MRDATeacherModel"}, "stage is 'MRDATeacherModel', the option file's 'MLNBicubicModel'"),
    "scale": ({"scale": 2}, "scale is '2', the option file's '4'"),
    "degradation": (
        {"degradation": "type isotropic, sigma [0.2, 4.0]"},
        "degradation is 'type isotropic, sigma [0.2, 4.0]', the option file's 'type bicubic'",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_state_of_another_training_is_refused_in_one_line(chain, tmp_path, faults, what):
    change, message = WRONG[what]
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    run = shutil.copytree(chain / opt["name"], tmp_path / "runs" / opt["name"])
    path = run / "training_states/6.state"
    state = checkpoint.load(path)
    state["mrda"].update(change)
    checkpoint.save(state, path)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with faults.fault(f"state of another {what}"):
        assert end(start(opt, "--auto_resume")) == 2
        lines = [line for line in output_file(opt).read_text().splitlines() if "INFO" not in line]
        assert lines == [f"error: {path}: {message}"]
        assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped"])
@pytest.mark.parametrize("file", ["training_states/9.state", "models/net_g_9.pth"])
def test_pruning_never_deletes_the_last_good_checkpoint(chain, tmp_path, faults, damage, file):
    run = shutil.copytree(chain / "demo_mln_bicubic_x4", tmp_path / "run")
    shutil.copy(run / "training_states/6.state", run / "training_states/9.state")
    shutil.copy(run / "models/net_g_6.pth", run / "models/net_g_9.pth")
    DAMAGES[damage](run / file, random.Random(0))
    with faults.fault("pruning beside a damaged checkpoint"):
        training_state.prune(run, 1)
        assert [path.name for path in training_state.states(run / "training_states")] == ["9.state", "6.state"]
        assert sorted(path.name for path in (run / "models").iterdir()) == [
            "net_g_6.pth",
            "net_g_9.pth",
            "net_g_latest.pth",
        ]


def test_what_a_killed_process_began_to_write_is_deleted(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    run = shutil.copytree(chain / opt["name"], tmp_path / opt["name"])
    left_over = run / "models/.net_g_9.pth.4321.tmp"
    left_over.write_bytes(b"half")
    (run / "training_states/6.state").unlink()  # so that there is something left to do
    train(opt, "--auto_resume")
    assert not left_over.exists()
    assert_nothing_lost(run, chain / opt["name"])
