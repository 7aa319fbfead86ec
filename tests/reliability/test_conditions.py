"""What a training depends on is the same in all of its processes, and in a run that is resumed; or it is said."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from functools import partial

import pytest
import skimage
import torch

from mrda_model import training_state
from mrda_utils import checkpoint
from tests.engine.conftest import events, run_folder
from tests.model.conftest import stage_options, train
from tests.reliability.processes import assert_nothing_lost, end, output_file, start, start_two

ENVIRONMENTS = {
    "no process": {"WORLD_SIZE": "0"},
    "fewer than none": {"WORLD_SIZE": "-1"},
    "words": {"WORLD_SIZE": "two"},
    "empty": {"WORLD_SIZE": ""},
    "superscript": {"WORLD_SIZE": "²"},
    "endless": {"WORLD_SIZE": "9" * 5000},
    "rank of none": {"RANK": "1"},
    "rank": {"WORLD_SIZE": "2", "RANK": "x"},
    "rank beyond": {"WORLD_SIZE": "2", "RANK": "2"},
    "no rank": {"WORLD_SIZE": "2"},
    "local rank": {"LOCAL_RANK": "-3"},
    "local world size": {"LOCAL_WORLD_SIZE": "0"},
    "restarts": {"TORCHELASTIC_RESTART_COUNT": "often"},
    "port": {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"},
    "port beyond": {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999999", "WORLD_SIZE": "2"},
    "no address": {"RANK": "0", "WORLD_SIZE": "2"},
}
SLURM = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1"}
for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"):
    ENVIRONMENTS[name] = {**SLURM, name: "all"}


def set_environment(values):
    os.environ.update(values)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_what_makes_no_sense_in_the_environment_is_one_line(chain, tmp_path, environment):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"), dist_params__timeout=3)
    flags = ("--launcher", "slurm") if "SLURM_PROCID" in environment else ()
    assert end(start(opt, *flags, prepare=partial(set_environment, environment))) == 2
    (line,) = [line for line in output_file(opt).read_text().splitlines() if not line.startswith("[")]
    assert line.startswith("error: ")
    assert next(name for name in reversed(environment) if environment[name] != SLURM.get(name)) in line
    assert not run_folder(opt).exists()


def on_two_disks(opt, homes):
    """Exit codes and output of two processes of these options, each with a home of its own."""
    ranks = start_two(opt, [partial(see_as_home, home) for home in homes])
    return [end(rank) for rank in ranks], output_file(opt).read_text()


def see_as_home(folder):
    """Let this process see a folder of its own as `home`, which lies beside those of all."""
    assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", folder, folder.parent / "home"], check=True)


@pytest.fixture
def homes(chain, tmp_path):
    """Two folders with the same images and weights in them, each of which one process sees as `home`."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("may not mount a disk")
    (tmp_path / "home").mkdir()
    for n in range(2):
        images = tmp_path / f"home{n}/images"
        images.mkdir(parents=True)
        for i in range(3):
            image = skimage.data.astronaut()[: 64 + i, :64]
            skimage.io.imsave(images / f"{i}.png", image, check_contrast=False)
        shutil.copy(chain / "demo_mln_meta_x4/models/net_g_latest.pth", images.parent / "mln.pth")
    return [tmp_path / f"home{n}" for n in range(2)]


def other_pixels(home):
    skimage.io.imsave(home / "images/1.png", 255 - skimage.io.imread(home / "images/1.png"), check_contrast=False)


def other_size(home):
    shutil.copy(home / "images/0.png", home / "images/1.png")


def other_weights(home):
    content = torch.load(home / "mln.pth", weights_only=True)
    next(iter(content["params_ema"].values())).add_(1)
    torch.save(content, home / "mln.pth")


DISKS = {
    "name": (lambda home: (home / "images/1.png").rename(home / "images/3.png"), "training images differ between"),
    "pixels": (other_pixels, "training images differ between"),
    "size": (other_size, "training images differ between"),
    "frozen network": (other_weights, "path.pretrain_network_mln differ between"),
    "no frozen network": (lambda home: (home / "mln.pth").write_bytes(b""), "path.pretrain_network_mln differ between"),
    "the same": (lambda home: None, "End of training"),
}


@pytest.mark.parametrize("what", DISKS)
def test_processes_whose_disks_differ_refuse_to_start(chain, tmp_path, homes, what):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path / "runs"))
    opt["path"]["pretrain_network_mln"], opt["datasets"]["train"]["dataroot_gt"] = (
        str(tmp_path / "home/mln.pth"),
        str(tmp_path / "home/images"),
    )
    change, message = DISKS[what]
    change(homes[1])
    codes, told = on_two_disks(opt, homes)
    assert codes == ([0, 0] if what == "the same" else [2, 2]), told
    assert message in told
    assert "Traceback" not in told
    assert run_folder(opt).exists() == (what == "the same")


def test_processes_that_would_resume_from_different_files_refuse(chain, tmp_path, homes):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    for home in homes:
        shutil.copytree(chain / opt["name"], home / "earlier")
    weights = homes[1] / "earlier/models/net_g_3.pth"
    content = torch.load(weights, weights_only=True)
    next(iter(content["params"].values())).add_(1)
    torch.save(content, weights)
    opt["path"]["resume_state"] = str(tmp_path / "home/earlier/training_states/3.state")
    codes, told = on_two_disks(opt, homes)
    assert codes == [2, 2]
    assert "differ between the processes" in told


CHANGES = {
    "gt_size": ({"datasets__train__gt_size": 56}, "datasets.train.gt_size was '48', is '56'"),
    "learning rate": ({"train__optim_g__lr": 3e-3}, "train.optim_g.lr was"),
    "flips": ({"datasets__train__use_hflip": False}, "datasets.train.use_hflip was 'True', is 'False'"),
    "tasks": ({"datasets__train__tasks_per_gpu": 1}, "tasks of a step was '2', is '1'"),
    "loss": ({"train__pixel_opt": {"type": "MSELoss"}}, "train.pixel_opt.type was 'L1Loss', is 'MSELoss'"),
    "nothing of importance": ({"train__total_iter": 8, "logger__print_freq": 1}, None),
    "workers": ({"datasets__train__num_worker_per_gpu": 1}, None),
}


@pytest.fixture
def cut(chain, tmp_path):
    """Options of a run that ended after iteration 6, and its copy."""
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path / "runs"))
    shutil.copytree(chain / opt["name"], run_folder(opt))
    (run_folder(opt) / "training_states/6.state").unlink()
    (run_folder(opt) / "events.jsonl").unlink()
    return opt


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_option_is_said_in_log_and_events(chain, cut, changes, message):
    opt = stage_options("mln_bicubic", chain, path=cut["path"], **changes)
    run = train(opt, "--auto_resume")
    (log,) = [path.read_text() for path in run.glob("train_*.log") if "Resuming" in path.read_text()]
    changed = [event for event in events(run) if event["event"] == "changed"]
    assert ("from here on the run is another one" in log) == bool(changed) == (message is not None)
    if message:
        assert f"WARNING: {message}" in log
        assert changed[0].keys() == {"time", "event", "iter", "what", "before", "now"}


def test_threads_processes_and_images_are_said(chain, cut, tmp_path, monkeypatch):
    state = run_folder(cut) / "training_states/3.state"
    content = checkpoint.load(state)
    before = content["conditions"]
    content["conditions"] = {**before, "threads": "7", "processes": "3", "training images": "2 images", "of old": "1"}
    checkpoint.save(content, state)
    run = train(cut, "--auto_resume")
    changed = {event["what"]: (event["before"], event["now"]) for event in events(run) if event["event"] == "changed"}
    assert changed.keys() == {"threads", "processes", "training images", "of old"}
    assert changed["threads"] == ("7", "1")
    assert changed["of old"] == ("1", "missing")
    assert changed["training images"] == ("2 images", before["training images"])


def test_a_run_whose_conditions_stay_says_nothing_and_ends_bit_for_bit(chain, cut):
    run = train(cut, "--auto_resume")
    assert [event["event"] for event in events(run) if event["event"] != "log"] == ["resume", "save", "end"]
    assert_nothing_lost(run, chain / cut["name"])


OTHER = {
    "seed": ({"manual_seed": 1}, "manual_seed was '0', is '1'"),
    "degradation": ({"degradation": {"type": "isotropic", "sigma": [0.2, 4.0]}}, r"degradation\."),
}


@pytest.mark.parametrize(("changes", "message"), OTHER.values(), ids=OTHER)
def test_another_training_is_refused_unless_asked_for(chain, cut, changes, message):
    opt = stage_options("mln_bicubic", chain, path=cut["path"], **changes)
    with pytest.raises(ValueError, match=rf"3\.state: .*{message}.*another training.*--resume_changed"):
        train(opt, "--auto_resume")
    assert not (run_folder(cut) / "events.jsonl").exists()
    run = train(opt, "--auto_resume", "--resume_changed")
    assert next(event["event"] for event in events(run)) == "resume"
    assert any(event["event"] == "changed" for event in events(run))
    assert training_state.load_state(run / "training_states/6.state")["conditions"]["manual_seed"] == str(
        opt["manual_seed"]
    )


def test_a_state_of_an_earlier_version_says_nothing(chain, cut):
    state = run_folder(cut) / "training_states/3.state"
    content = checkpoint.load(state)
    del content["conditions"]
    checkpoint.save(content, state)
    assert not [event for event in events(train(cut, "--auto_resume")) if event["event"] == "changed"]
