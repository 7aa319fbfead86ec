"""A foreign BasicSR experiment: its own YAML, its own pipeline, and one more import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from mrda_utils import compat  # noqa: F401

SCRIPT = """
import sys
import mrda_arch
from basicsr.{pipeline} import {pipeline}_pipeline
{pipeline}_pipeline(sys.argv.pop(1))
ours = {{name.split(".")[0] for name in sys.modules if name.startswith("mrda_")}}
assert ours == {{"mrda_arch", "mrda_utils"}}, ours
"""


def _write_pairs(folder, rng):
    for kind, size in (("gt", 64), ("lq", 16)):
        (folder / kind).mkdir()
        for i in range(4):
            image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / kind / f"{i}.png")


def _options(folder, model_type):
    pairs = {"type": "PairedImageDataset", "dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}
    pairs["io_backend"] = {"type": "disk"}
    loader = {"gt_size": 32, "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    net = {"type": "MRDANet", "num_feat": 8, "num_block": 1, "upscale": 4, "den_feat": 4}
    train = {
        "name": "foreign",
        "model_type": model_type,
        "scale": 4,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": {"name": "pairs", **pairs, **loader}, "val": {"name": "pairs", **pairs}},
        "network_g": net,
        "path": {"pretrain_network_g": None},
        "train": {
            "ema_decay": 0.9,
            "total_iter": 3,
            "optim_g": {"type": "Adam", "lr": 0.001},
            "scheduler": {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {"val_freq": 2, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3, "use_tb_logger": False},
    }
    if model_type == "SRGANModel":
        train["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
        train["train"]["optim_d"] = {"type": "Adam", "lr": 0.001}
        train["train"]["gan_opt"] = {
            "type": "GANLoss",
            "gan_type": "vanilla",
            "real_label_val": 1.0,
            "fake_label_val": 0.0,
            "loss_weight": 0.1,
        }
    test = {**train, "datasets": {"test": train["datasets"]["val"]}}
    test["path"] = {"pretrain_network_g": str(folder / "experiments/foreign/models/net_g_3.pth")}
    test["val"] = {**train["val"], "suffix": None}
    return {"train": train, "test": test}


@pytest.mark.parametrize("model_type", ["SRModel", "SRGANModel"])
def test_stock_models_train_and_test_mrda_net(tmp_path, model_type):
    _write_pairs(tmp_path, np.random.default_rng(0))
    for pipeline, opt in _options(tmp_path, model_type).items():
        option_file = tmp_path / f"{pipeline}.yml"
        option_file.write_text(yaml.safe_dump(opt))
        command = [sys.executable, "-c", SCRIPT.format(pipeline=pipeline), str(tmp_path), "-opt", str(option_file)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "# psnr:" in done.stderr
    assert (tmp_path / "experiments/foreign/models/net_g_latest.pth").is_file()


def test_no_registry_name_collides_with_basicsr():
    from basicsr.utils import registry

    import mrda_arch  # noqa: F401
    import mrda_data  # noqa: F401
    import mrda_loss  # noqa: F401
    import mrda_model  # noqa: F401

    ours = set()
    for kind in ("ARCH", "DATASET", "LOSS", "MODEL"):
        names = getattr(registry, f"{kind}_REGISTRY")._obj_map
        own = {name for name, target in names.items() if target.__module__.startswith("mrda_")}
        # BasicSR looks names up with the suffix _basicsr as well
        assert not {f"{name}_basicsr" for name in own} & set(names)
        ours |= own
    assert {"MLN", "DEN", "RDAN", "MRDANet", "GTDataset", "IDRDistillLoss", "MRDAStudentModel"} <= ours
