"""Every two options that a stage has, together, in two processes: a training of two steps ends as it should."""

from __future__ import annotations

import random
from copy import deepcopy
from itertools import combinations

import pytest
import skimage
import torch

from mrda_options import validate
from mrda_utils import checkpoint
from mrda_utils.errors import OptionError
from tests.engine.conftest import run_folder
from tests.model.conftest import STAGES, stage_options
from tests.model.test_adversarial import GAN
from tests.reliability.conftest import VAL
from tests.reliability.processes import end, output_file, start_two

DEGRADATIONS = [
    {"type": "bicubic"},
    {"type": "isotropic", "sigma": [0.2, 4.0]},
    {"type": "anisotropic", "sigma_x": [0.2, 4.0], "sigma_y": [0.2, 4.0], "noise_sigma_255": [0.0, 25.0]},
    {"type": "realesrgan"},
]
VALIDATION = {
    "datasets__val": {**VAL, "max_images": 1, "max_side": 48},
    "val": {"val_freq": 2, "save_best": "psnr", "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4}}},
}
ALL = {
    "degradation": DEGRADATIONS,
    "train__accumulation_steps": [1, 2],
    "train__ema_decay": [0.999, 0.0],
    "train__clip_grad_norm": [None, 0.1],
    "train__scheduler": [{"type": "MultiStepLR", "milestones": [1]}, {"type": "CosineAnnealingLR"}],
    "train__warmup_iter": [0, 2],
    "train__pixel_opt": [{"type": "L1Loss"}, {"type": "MSELoss"}, {"type": "CharbonnierLoss"}],
    "datasets__train__contrast": [None, [0.8, 1.25]],
    "datasets__train__cache": ["none", "ram", "mmap"],
    "datasets__train__num_worker_per_gpu": [0, 1],
    "datasets__train__use_rot": [True, False],
    "datasets__train__tasks_per_gpu": [1, 2],
    "datasets__train__skip_corrupt": [False, True],
    "deterministic": [False, True],
    "logger__keep_last": [None, 1],
    "logger__use_tb_logger": [False, True],
    "validation": [{}, VALIDATION],
}
NETWORK = {"train__amp": ["none", "bf16"], "train__channels_last": [False, True], "degradation_per": ["task", "image"]}
ADAPTING = {
    "adaptation__adapt_per": ["task", "image"],
    "adaptation__dtype": ["float32", "bfloat16"],
    "adaptation__freeze_upscaler": [True, False],
}
ADVERSARY = {**GAN, "train__net_d_iters": 2, "train__gan_opt": {"type": "GANLoss", "gan_type": "hinge"}}
ADVERSARIAL = {"adversary": [{}, GAN, ADVERSARY], "train__l1_gt_usm": [False, True]}
OPTIONS = {
    "mln_bicubic": {**ALL, **NETWORK},
    "mln_meta": {**ALL, **{**ADAPTING, "adaptation__adapt_per": ["task"]}, "train__meta__first_order": [True, False]},
    "teacher": {**ALL, **NETWORK, **ADAPTING, **ADVERSARIAL},
    "student": {
        **ALL,
        **NETWORK,
        **ADAPTING,
        **ADVERSARIAL,
        "train__kd_opt__warmup_iter": [0, 1],
        "train__idr_per": ["image", "task"],
    },
}


def options(stage: str, chain, root, row: dict) -> dict:
    """Option file of a row; None leaves a key out, a mapping of several keys (`validation`, `adversary`) sets them."""
    changes = {}
    for key, value in row.items():
        changes |= value if key in ("validation", "adversary") else {} if value is None else {key: value}
    opt = stage_options(stage, chain, path__experiments_root=str(root / "runs"), **deepcopy(changes))
    opt["train"]["total_iter"] = 2
    opt["logger"]["save_checkpoint_freq"] = 1
    opt["datasets"]["train"].update(dataroot_gt=str(root / "images"), cache_folder=str(root / "cache"))
    return opt


def is_allowed(stage: str, chain, root, row: dict) -> bool:
    try:
        validate(options(stage, chain, root, row), True, "x")
    except OptionError:
        return False
    return True


def pairs(row: dict) -> set[tuple]:
    return set(combinations([(key, repr(value)) for key, value in row.items()], 2))


def rows(stage: str, chain, root, most: int | None = None) -> list[dict]:
    """Rows that together have every two values that may stand together; each is the best of some that are drawn."""
    draw, found, seen, fruitless = random.Random(stage), [], set(), 0
    while fruitless < 10 and len(found) != most:
        drawn = [{key: draw.choice(values) for key, values in OPTIONS[stage].items()} for _ in range(50)]
        drawn.sort(key=lambda row: len(pairs(row) - seen), reverse=True)
        best = next((row for row in drawn if pairs(row) - seen and is_allowed(stage, chain, root, row)), None)
        fruitless = fruitless + 1 if best is None else 0
        if best is not None:
            found.append(best)
            seen |= pairs(best)
    return found


@pytest.fixture
def root(tmp_path):
    """Folder with images."""
    (tmp_path / "images").mkdir()
    for n in range(3):
        skimage.io.imsave(tmp_path / f"images/{n}.png", skimage.data.astronaut()[:96, :96], check_contrast=False)
    return tmp_path


def check(stage: str, chain, root, row: dict) -> None:
    opt = options(stage, chain, root, row)
    for key, path in opt["path"].items():  # weights that do not say what they were trained on
        if key.startswith("pretrain_network"):
            opt["path"][key] = str(root / f"{key}.pth")
            torch.save({"params": checkpoint.load(path)["params"]}, opt["path"][key])
    codes = [end(process) for process in start_two(opt)]
    told = output_file(opt).read_text()
    assert codes == [0, 0], f"{row}\n{told[-3000:]}"
    assert "Traceback" not in told, row
    weights = checkpoint.load(run_folder(opt) / "models/net_g_latest.pth")
    assert all(tensor.isfinite().all() for tensor in weights["params"].values())


@pytest.mark.parametrize("number", [0, 1])
def test_some_options_go_together_in_two_processes(chain, root, number):
    row = rows("student", chain, root, number + 1)[number]
    check("student", chain, root, row)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", STAGES)
def test_any_two_options_go_together_in_two_processes(chain, root, faults, stage):
    for number, row in enumerate(rows(stage, chain, root)):
        with faults.fault(f"two processes, pairs of options of {stage}"):
            check(stage, chain, root, row | {"name": f"run{number}"})
