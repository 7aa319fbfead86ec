"""Every key that the schema accepts for a stage is read while that stage runs."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterator, MutableMapping
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from basicsr.archs import build_network
from PIL import Image

import mrda_loss  # noqa: F401
from mrda_data import BenchmarkDataset, LQDataset, PairedDataset
from mrda_data.lr_set import write_lr_set
from mrda_data.sources import BundledSource
from mrda_model import base_model, frozen
from mrda_options import command_line, read_options
from mrda_pipeline import train_pipeline as pipeline
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from scripts import generate_options_docs as generator
from tests.metric.test_lpips import alexnet
from tests.model.conftest import ROOT, STAGES, shrunk, stage_options
from tests.model.test_baselines import NETWORKS, baseline

# sections of several types: each run takes the next one of each
VARIANTS = {
    "degradation": [
        {"type": "bicubic"},
        {"type": "isotropic", "sigma": [1.0, 2.0]},
        {"type": "anisotropic", "sigma_x": [1.0, 2.0], "sigma_y": [1.0, 2.0], "noise_sigma_255": [0.0, 5.0]},
        {"type": "realesrgan"},
        {"type": "photo"},
        {"type": "mixture", "of": [{"weight": 1.0, "type": "bicubic"}, {"weight": 1.0, "type": "photo"}]},
    ],
    "pixel_opt": [{"type": "L1Loss"}, {"type": "MSELoss"}, {"type": "CharbonnierLoss"}],
    "scheduler": [
        {"type": "MultiStepLR"},
        {"type": "CosineAnnealingLR"},
        {"type": "CosineAnnealingRestartLR", "periods": [100]},
    ],
}
# what has no default, or none that would do
VAL_SET = {
    "name": "Val",
    "type": "BenchmarkDataset",
    "dataroot_gt": "bundled:test",
    "protocol": "bicubic",
    "max_images": 1,
    "max_side": 208,  # NIQE needs so many
}
PERCEPTUAL = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1.0}, "vgg_weights": "random"}
LQ_SET = {
    "name": "Own",
    "type": "LQDataset",
    "dataroot_lq": "bundled:test",
    "max_images": 1,
    "max_side": 52,  # times the scale, the same
}
METRICS = {name: {"type": f"calculate_{name}", "crop_border": 4} for name in ("psnr", "ssim", "niqe", "lpips")}


class Recorder(MutableMapping):
    """Options that note the dotted names of the keys whose values are taken; copies note in the same place.

    A value that is replaced has not been used yet. Spreading (`**options`) takes every value: the receiver, a
    constructor, refuses what it does not know.
    """

    def __init__(self, options: dict, read: set[str], prefix: str = "") -> None:
        self.read, self.prefix = read, prefix
        self.options = {
            key: Recorder(value, read, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in options.items()
        }

    def __getitem__(self, key):
        value = self.options[key]
        self.read.add(self.prefix + key)
        return value

    def __setitem__(self, key, value):
        self.options[key] = value
        self.read.discard(self.prefix + key)

    def __delitem__(self, key):
        del self.options[key]

    def __contains__(self, key):
        return key in self.options

    def __iter__(self):
        return iter(self.options)

    def __len__(self):
        return len(self.options)

    def __deepcopy__(self, memo):
        return Recorder(self.plain(), self.read, self.prefix)

    def plain(self) -> dict:
        return {key: value.plain() if isinstance(value, Recorder) else value for key, value in self.options.items()}


def names(options: dict, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys, sections included."""
    for key, value in options.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{key}.")


def general(found: set[str]) -> set[str]:
    """Names as the reference of options writes them: `*` for what the user names."""
    return {re.sub(r"^(datasets|val\.metrics|baselines)\.[^.]+", r"\1.*", name) for name in found}


def fake_wandb() -> ModuleType:
    """Takes what BasicSR tells it."""
    fake = ModuleType("wandb")
    fake.__spec__ = SimpleNamespace()
    fake.init, fake.util = lambda **kwargs: None, SimpleNamespace(generate_id=lambda: "abc")
    return fake


@pytest.fixture
def record(monkeypatch, tmp_path):
    """Function that runs options, and the sets of names that were given to it and read."""
    given, read = set(), set()

    def read_and_record(*args):
        opt, text = read_options(*args)
        given.update(names(opt))
        return Recorder(opt, read), text

    monkeypatch.setattr(command_line, "read_options", read_and_record)
    # these look at values, or print them, without using them
    monkeypatch.setattr(command_line, "json", SimpleNamespace(dumps=lambda *args, **kwargs: ""))
    monkeypatch.setattr(command_line, "_check_consistency", lambda opt: None)
    monkeypatch.setattr(command_line, "_check_files", lambda *args: None)
    monkeypatch.setattr(command_line, "vgg_path", lambda *args: None)
    monkeypatch.setattr(pipeline, "dump", lambda opt: "")
    monkeypatch.setitem(sys.modules, "wandb", fake_wandb())
    monkeypatch.setattr(base_model, "degradation_name", lambda opt: "")
    monkeypatch.setattr(frozen, "degradation_name", lambda opt: "")

    def run(function, opt):
        (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
        function(tmp_path, ["-opt", str(tmp_path / "o.yml")])

    return run, given, read


def with_weights(opt: dict, folder) -> dict:
    """Options in which every network starts from a file."""
    for section in [key for key in opt if key.startswith("network_")]:
        path = folder / f"{section}.pth"
        torch.save({"params": build_network(opt[section]).state_dict()}, path)
        opt["path"][f"pretrain_{section}"] = str(path)
    return opt


def with_lr_set(folder) -> dict:
    """The validation set, its LR images in a folder."""
    write_lr_set(BenchmarkDataset({**VAL_SET, "scale": 4, "kernel_size": 21}), folder / "lr")
    return {**VAL_SET, "dataroot_lq": str(folder / "lr")}


def with_pairs(folder) -> dict:
    """A set of one LR image with its ground truth."""
    hr = Image.fromarray(BundledSource("test").read(0)[:208, :208])
    for name, image in {"pairs/hr/a.png": hr, "pairs/lr/ax4.png": hr.reduce(4)}.items():
        (folder / name).parent.mkdir(parents=True)
        image.save(folder / name)
    roots = {"dataroot_gt": str(folder / "pairs/hr"), "dataroot_lq": str(folder / "pairs/lr")}
    return {"name": "Pairs", "type": "PairedDataset", **roots, "lq_template": "{name}x4", "max_images": 1}


def with_sr_images(folder, pairs: dict) -> dict:
    """Another program's SR images of the test sets, black ones."""
    sets = (
        BenchmarkDataset({**VAL_SET, "scale": 4, "kernel_size": 21}),
        LQDataset({**LQ_SET, "scale": 4}),
        PairedDataset({**pairs, "scale": 4}),
    )
    for dataset in sets:
        for item in dataset:
            height, width = (4 * side for side in item["lq"].shape[1:])
            case = "" if item["kernel"] == "unknown" else item["kernel"]
            path = folder / "sr" / dataset.opt["name"] / case / item["lq_path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (width, height)).save(path)
    return {"sr": str(folder / "sr")}


def with_alexnet(folder) -> dict:
    """Metrics, LPIPS with random weights."""
    torch.save(alexnet(), folder / "alexnet.pth")
    metrics = copy.deepcopy(METRICS)
    metrics["lpips"]["weights"] = str(folder / "alexnet.pth")
    return metrics


def check(model_type: str, given: set[str], read: set[str]) -> None:
    accepted = {key.name for key in generator.keys(generator.json_schema(), model_type)}
    assert accepted - general(given) == set(), "these keys have no value in this test's runs: give them one"
    assert given - read == set(), "nobody reads these keys"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_every_key(stage, record, tmp_path):
    run, given, read = record
    opt = stage_options(stage, tmp_path)
    opt["datasets"]["train"].update(contrast=[0.5, 2.0], degrade_size=56, cache="mmap", cache_folder=str(tmp_path))
    opt["datasets"] |= {"val": with_lr_set(tmp_path), "val_pairs": with_pairs(tmp_path)}
    opt["val"] = {"val_freq": 2, "metrics": with_alexnet(tmp_path), "save_best": "psnr"}
    opt["val"]["metrics"]["psnr"]["better"] = "higher"
    opt["train"].update(total_iter=2, clip_grad_norm=1.0)
    if stage in ("teacher", "student"):
        opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
        opt["train"] |= {"optim_d": {"lr": 1e-4}, "gan_opt": {"type": "GANLoss"}, "perceptual_opt": PERCEPTUAL}
    with_weights(opt, tmp_path)
    wandb = {"project": "sr", "resume_id": "abc"}
    opt["logger"].update(save_checkpoint_freq=1, print_freq=1, keep_last=9, use_tb_logger=True, wandb=wandb)
    for variant in range(max(len(types) for types in VARIANTS.values())):
        for section, types in VARIANTS.items():
            (opt["train"] if section in opt["train"] else opt)[section] = types[variant % len(types)]
        run(pipeline.train_pipeline, opt)
    if stage in ("teacher", "student"):
        opt["path"]["finetune_network_g"] = opt["path"].pop("pretrain_network_g")
    opt["path"]["resume_state"] = str(tmp_path / opt["name"] / "training_states/1.state")
    opt["name"] += "_resumed"
    run(pipeline.train_pipeline, opt)
    check(opt["model_type"], given, read)


def test_a_test_reads_every_key(record, tmp_path):
    run, given, read = record
    opt = with_weights(shrunk(ROOT / "options/demo/test_gaussian8_x4.yml"), tmp_path)
    pairs = with_pairs(tmp_path)
    opt["datasets"] = {"test": with_lr_set(tmp_path), "test_own": LQ_SET, "test_pairs": pairs}
    opt["val"] = {"metrics": with_alexnet(tmp_path), "save_img": True, "panel_crop": {"chelsea": [0, 0, 8]}}
    networks = {kind: {**baseline(tmp_path, kind)[0], "param_key": "params"} for kind in NETWORKS}
    opt["baselines"] = {**networks, "Program": with_sr_images(tmp_path, pairs)}
    run(run_test, opt)
    check(opt["model_type"], given, read)


def test_the_recorder_notes_what_is_taken_and_nothing_else():
    read = set()
    opt = Recorder({"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}, "g": 5, "h": 6}, read)
    assert "a" in opt
    assert len(copy.deepcopy(opt)) == 5
    assert read == set()
    assert opt.get("a") == opt["a"] == 1
    assert opt.get("x") is None
    assert copy.deepcopy(opt)["b"]["c"] == 2
    assert dict(**opt["e"]) == {"f": 4}
    assert copy.deepcopy(opt).pop("g") == 5
    opt["h"] = opt["h"] + 1
    assert read == {"a", "b", "b.c", "e", "e.f", "g"}
    assert general({"datasets.train.x", "val.metrics.psnr.y", "val.metrics"}) == {
        "datasets.*.x",
        "val.metrics.*.y",
        "val.metrics",
    }
