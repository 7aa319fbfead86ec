"""Non-finite steps, memory, slow data."""

from __future__ import annotations

import copy
import json
import sys
import time
import types

import pytest
import torch

from mrda_data import GTDataset
from mrda_model import training_state
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import UserError, run
from tests.engine.conftest import ROOT, events, finish, run_folder
from tests.model.conftest import STAGES, stage_options, train
from tests.model.test_stages import build


@pytest.fixture
def spoiled(monkeypatch):
    """Make the pixel loss NaN in the iterations given."""
    from mrda_model.base_model import StageModel

    def spoil(*iterations, only_gradient=False):
        original = StageModel.apply_gradients

        def apply_gradients(self, *args):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls in iterations:
                if only_gradient:
                    grad = next(p.grad for p in self.trained if p.grad is not None)
                    grad[(0,) * grad.ndim] = torch.inf
                else:
                    self.losses = {name: loss * torch.nan for name, loss in self.losses.items()}
            original(self, *args)

        monkeypatch.setattr(StageModel, "apply_gradients", apply_gradients)

    return spoil


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("only_gradient", [False, True])
def test_a_step_that_is_not_finite_leaves_weights_and_moments_alone(chain, tmp_path, spoiled, stage, only_gradient):
    model, batch = build(stage, chain, tmp_path)
    spoiled(2, only_gradient=only_gradient)
    model.feed_data(batch)
    model.optimize_parameters(1)
    before = copy.deepcopy((model.net_g.state_dict(), model.optimizer_g.state_dict()["state"]))
    model.optimize_parameters(2)
    after = model.net_g.state_dict(), model.optimizer_g.state_dict()["state"]
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    for index, moments in before[1].items():
        assert all(torch.equal(tensor, after[1][index][name]) for name, tensor in moments.items())
    assert model.skipped_steps() == (1, 1)
    model.optimize_parameters(3)
    assert model.skipped_steps() == (1, 0)
    assert any(not torch.equal(before[0][name], tensor) for name, tensor in model.net_g.state_dict().items())


def test_a_skipped_step_counts_as_an_iteration_and_is_logged(chain, tmp_path, spoiled):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path))
    spoiled(3, 5)
    folder = train(opt)
    assert [(e["iter"], e["steps"], e["in_a_row"]) for e in events(folder) if e["event"] == "skip"] == [
        (3, 1, 1),  # told with the checkpoint
        (6, 1, 0),
    ]
    assert next(folder.glob("*.log")).read_text().count("1 steps skipped since the last line") == 2
    state = training_state.load_state(folder / "training_states/6.state")
    assert (state["iter"], state["skipped"]) == (6, [2, 0])


def test_too_many_skipped_steps_end_the_run_and_name_the_last_checkpoint(chain, tmp_path, spoiled):
    opt = stage_options("mln_meta", chain, path__experiments_root=str(tmp_path), train__max_skipped=3)
    opt["train"]["total_iter"] = 20
    spoiled(*range(5, 30))
    with pytest.raises(UserError, match=r"max_skipped: the last 4 steps .* the last checkpoint is .*/6\.state; lower"):
        train(opt)
    folder = run_folder(opt)
    assert all(t.isfinite().all() for t in checkpoint.load(folder / "models/net_g_6.pth")["params"].values())


def test_skipped_steps_are_told_at_the_end_however_rare_log_lines_are(chain, tmp_path, spoiled):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), train__max_skipped=3)
    opt["logger"].update(print_freq=100, save_checkpoint_freq=100)
    spoiled(*range(1, 30))
    with pytest.raises(UserError, match=r"max_skipped: the last 6 steps .* nothing was saved before"):
        train(opt)
    assert [e["steps"] for e in events(run_folder(opt)) if e["event"] == "skip"] == [6]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("print_freq", [1, 100])
def test_a_finite_explosion_ends_the_run_before_good_checkpoints_are_gone(
    chain, tmp_path, monkeypatch, stage, print_freq
):
    from mrda_model.base_model import StageModel

    original = StageModel.apply_gradients

    def apply_gradients(self, *args):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls >= 8:
            self.losses = {name: loss * 1e4 for name, loss in self.losses.items()}
        original(self, *args)

    monkeypatch.setattr(StageModel, "apply_gradients", apply_gradients)
    opt = stage_options(stage, chain, path__experiments_root=str(tmp_path))
    opt["train"]["total_iter"] = 20
    opt["logger"].update(print_freq=print_freq, save_checkpoint_freq=3, keep_last=1)
    with pytest.raises(UserError, match=r"^the training has diverged: .* the last checkpoint is .*/6\.state; lower"):
        train(opt)
    folder = run_folder(opt)
    assert [path.name for path in (folder / "training_states").iterdir()] == ["6.state"]
    assert [path.name for path in (folder / "models").iterdir()] == ["net_g_6.pth"]


def test_no_checkpoint_goes_for_one_of_a_skipped_step(chain, tmp_path, spoiled):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    opt["logger"].update(save_checkpoint_freq=2, keep_last=1)
    spoiled(4)
    folder = train({**opt, "train": {**opt["train"], "total_iter": 4}})
    assert {path.name for path in (folder / "training_states").iterdir()} == {"2.state", "4.state"}


def test_a_step_spoiled_on_one_process_is_skipped_on_both(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    opt = stage_options("mln_meta", chain, path__experiments_root=str(tmp_path))
    out = finish(opt, processes=2, script=ROOT / "tests/engine/spoiled_train.py")
    assert out.count("skipped (1, 0), weights equal True") == 2


def test_weights_that_are_not_finite_are_never_saved(chain, tmp_path):
    model, _ = build("mln_bicubic", chain, tmp_path, path__experiments_root=str(tmp_path))
    model.net_g.body[0].weight.data[0] = torch.nan
    with pytest.raises(CheckpointError, match="iteration 7: weights are not finite, nothing is saved"):
        model.save(7)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_too_little_memory_ends_in_one_line_of_advice(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    shown = capsys.readouterr().err
    assert caught.value.code == 2
    assert shown.startswith("error: out of memory; a training needs less with lower datasets.train.tasks_per_gpu")
    assert shown.count("\n") == 1


def test_slow_reading_is_warned_of_once(chain, tmp_path, monkeypatch):
    original = GTDataset.__getitem__

    def slow(self, sample):
        time.sleep(0.05)
        return original(self, sample)

    monkeypatch.setattr(GTDataset, "__getitem__", slow)
    folder = train(stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path)))
    log = next(folder.glob("*.log")).read_text()
    assert log.count("Reading data takes") == 1
    usual = next((chain / "demo_teacher_x4").glob("*.log")).read_text()
    assert "Reading data takes" not in usual
    assert "raise datasets.train.num_worker_per_gpu (now 0)" in log
    assert "datasets.train.cache" in log


def test_keep_last_prunes_and_the_best_stays(chain, tmp_path):
    val = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), datasets__val=val)
    opt["datasets"]["val"].update(max_images=1, max_side=48)
    metric = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}
    opt["val"] = {"val_freq": 1, "save_best": "psnr", "metrics": {"psnr": metric}}
    opt["logger"].update(save_checkpoint_freq=1, keep_last=2)
    folder = train(opt)
    assert sorted(p.name for p in (folder / "training_states").iterdir()) == ["5.state", "6.state"]
    assert sorted(p.name for p in (folder / "models").iterdir()) == [
        "net_g_5.pth",
        "net_g_6.pth",
        "net_g_best.pth",
        "net_g_latest.pth",
    ]
    measured = {e["iter"]: e["psnr"] for e in events(folder) if e["event"] == "validation"}
    best = checkpoint.load(folder / "models/net_g_best.pth")["mrda"]["iteration"]
    assert best == max(measured, key=measured.get)


def test_save_best_must_name_a_metric(chain, tmp_path):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path))
    opt["val"] = {"val_freq": 1, "save_best": "pnsr", "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}}
    with pytest.raises(UserError, match="save_best: 'pnsr', did you mean 'psnr'"):
        train(opt)


def test_events_tell_the_story_of_a_run(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    folder = train(opt)
    (folder / "training_states/6.state").write_bytes(b"damaged")
    train(opt, "--auto_resume")
    told = [e for e in events(folder) if e["event"] != "log"]
    assert [(e["event"], e["iter"]) for e in told] == [
        ("start", 0),
        ("save", 3),
        ("save", 6),
        ("end", 6),
        ("fallback", 3),
        ("resume", 3),
        ("save", 6),
        ("end", 6),
    ]
    saves = [e for e in told if e["event"] == "save"]
    assert all(e["iter_per_s"] > 0 and e["memory_mib"] > 100 and e["eta_s"] >= 0 for e in saves)
    assert "6.state: damaged" in told[4]["reason"]


def test_a_finished_run_says_so_and_is_left_alone(chain, tmp_path, capsys):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    folder = train(opt)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    train(opt, "--auto_resume")
    assert "demo_mln_bicubic_x4: already finished, 6 iterations" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    latest = folder / "models/net_g_latest.pth"
    latest.unlink()  # killed before it was written
    train(opt, "--auto_resume")
    assert "already finished" not in capsys.readouterr().out
    assert latest.is_file()


def test_wandb_follows_the_tensorboard_log(chain, tmp_path, monkeypatch):
    calls = []
    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()
    fake.util = types.SimpleNamespace(generate_id=lambda: "abc")
    fake.init = lambda **kwargs: calls.append(kwargs)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    opt["logger"].update(use_tb_logger=True, wandb={"project": "sr"})
    train(opt)
    assert [(c["project"], c["name"], c["sync_tensorboard"]) for c in calls] == [("sr", "demo_mln_bicubic_x4", True)]
    assert json.dumps(calls[0]["config"])


def test_wandb_that_is_not_installed_is_named(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    opt["logger"].update(use_tb_logger=True, wandb={"project": "sr"})
    with pytest.raises(UserError, match="wandb: not installed; pip install wandb"):
        train(opt)
