"""Every stage on a device that is not the CPU: its results, nothing to wait for, no more to do than before."""

from __future__ import annotations

import pytest
import torch
import yaml
from basicsr.models import build_model
from torch.utils.data import default_collate

import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_data import GTDataset
from mrda_options.command_line import parse
from tests.model.conftest import ROOT, shrunk, stage_options
from tests.model.test_adversarial import GAN

OTHER_STAGES = {"baseline": "lite/train_baseline_x4.yml", "kernel": "ablation/train_kernel_x4.yml"}
TWO_STEPS = {"adaptation__inner_lrs": [1e-2, 1e-2]}
BF16 = {"train__amp": "bf16"}
ADAPT_BF16 = {"adaptation__dtype": "bfloat16"}
LAST = {"train__channels_last": True}
ACCUMULATE = {"datasets__train__tasks_per_gpu": 1, "train__accumulation_steps": 2}
CLIP = {"train__clip_grad_norm": 1e-3}
PER_IMAGE = {"adaptation__adapt_per": "image"}
SECOND_ORDER = {"train__meta__first_order": False}
UPSCALER_TOO = {"adaptation__freeze_upscaler": False}
CONTRAST = {"datasets__train__contrast": [0.5, 2.0]}
USM = {"train__l1_gt_usm": True, "train__gan_gt_usm": True}
ONE_IDR = {"train__idr_per": "task"}
MANY = {"datasets__train__images_per_task": 8}
SIGMA = [1.0, 2.0]
ANISOTROPIC = {
    "degradation": {"type": "anisotropic", "sigma_x": SIGMA, "sigma_y": SIGMA, "noise_sigma_255": [5.0, 25.0]}
}
REALESRGAN = {"degradation": {"type": "realesrgan"}}
EACH_ITS_OWN = {"degradation_per": "image"}

# stage, options, and the launches of its second iteration, `optimize_parameters` alone
CASES = [
    ("mln_bicubic", {}, 119),
    ("mln_bicubic", BF16, 161),
    ("mln_bicubic", LAST, 120),
    ("mln_bicubic", ACCUMULATE | CLIP, 242),
    ("mln_meta", {}, 744),
    ("mln_meta", ADAPT_BF16, 1032),
    ("mln_meta", SECOND_ORDER, 1540),
    ("mln_meta", ACCUMULATE, 744),
    ("mln_meta", UPSCALER_TOO, 600),
    ("mln_meta", ANISOTROPIC | CONTRAST, 744),
    ("mln_meta", REALESRGAN, 744),
    ("teacher", {}, 724),
    ("teacher", BF16 | ADAPT_BF16, 1021),
    ("teacher", LAST, 730),
    ("teacher", ACCUMULATE, 918),
    ("teacher", PER_IMAGE | EACH_ITS_OWN, 830),
    ("teacher", GAN, 1161),
    ("teacher", GAN | USM | LAST | BF16 | ADAPT_BF16, 1539),
    ("student", {}, 773),
    ("student", BF16 | ADAPT_BF16, 1090),
    ("student", LAST, 779),
    ("student", ACCUMULATE | CLIP, 1053),
    ("student", PER_IMAGE, 879),
    ("student", ONE_IDR, 779),
    ("student", GAN | USM, 1244),
    ("student", GAN | LAST | BF16, 1354),
    ("baseline", {}, 215),
    ("baseline", LAST | MANY, 221),
    ("baseline", BF16 | LAST, 294),
    ("baseline", REALESRGAN, 215),
    ("kernel", {}, 201),
    ("kernel", LAST | MANY, 207),
    ("kernel", BF16 | EACH_ITS_OWN, 262),
]
MARGIN = 1.15


def options(stage, chain, tmp_path, **changes):
    """Options of a stage at the smallest size; `changes` are written section__key=value."""
    if stage in OTHER_STAGES:
        opt = shrunk(ROOT / "options" / OTHER_STAGES[stage])
        changes = {"train__amp": "none"} | changes
        if stage == "kernel":
            changes |= {"degradation__kernel_size": 9, "network_g__kernel_size": 9}
    else:
        opt = stage_options(stage, chain)
        if stage != "mln_bicubic":
            changes = TWO_STEPS | changes
    changes = {"path__experiments_root": str(tmp_path), "datasets__train__gt_size": 32} | changes
    for key, value in changes.items():
        *sections, last = key.split("__")
        target = opt
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
    return parse(ROOT, ["-opt", str(tmp_path / "o.yml")], is_train=True).opt


def build(stage, chain, tmp_path, **changes):
    """A stage's model, from one seed, and its first batch, as a loader hands it over."""
    opt = options(stage, chain, tmp_path, **changes)
    torch.manual_seed(0)
    model = build_model(opt)
    dataset, train_opt = GTDataset(opt["datasets"]["train"]), opt["datasets"]["train"]
    count = train_opt["tasks_per_gpu"] * opt["train"]["accumulation_steps"] * train_opt["images_per_task"]
    batch = default_collate([dataset[i] for i in range(count)])
    if model.device.type != "cpu":
        batch = {key: value.pin_memory() for key, value in batch.items()}
    return model, batch


def trained(model):
    """Parameters of all optimizers."""
    return [p for optimizer in model.optimizers for group in optimizer.param_groups for p in group["params"]]


def outcome(model, before):
    """What steps have made, on the CPU; gradients and losses are those of the last one."""
    return {
        "gradients": [p.grad.cpu() for p in trained(model)],
        "movement": [(p.detach() - start).cpu() for p, start in zip(trained(model), before, strict=True)],
        "averaged": [p.cpu() for p in model.net_g_ema.parameters()],
        "losses": [loss.detach().cpu() for loss in model.losses.values()],
    }


def distance(found, expected):
    """Relative, of all numbers together."""
    found, expected = (torch.cat([tensor.double().flatten() for tensor in tensors]) for tensors in (found, expected))
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("stage", "changes", "launches"), CASES)
def test_steps_are_those_of_the_cpu_and_wait_for_nothing(device, bfloat16, chain, tmp_path, stage, changes, launches):
    fed = []
    with device:
        model, batch = build(stage, chain, tmp_path, device=device.option, **changes)
        before = [p.detach().clone() for p in trained(model)]
        for step in (1, 2):
            model.feed_data(batch)
            fed.append([type(task)(*(part.cpu() for part in task)) for task in model.tasks])
            model.update_learning_rate(step)
            with device.watched() as seen:
                model.optimize_parameters(step)
        assert {p.device.type for p in (*model.net_g.parameters(), *model.net_g_ema.parameters())} == {device.name}
        found = outcome(model, before)
    assert seen.waits == []  # in the second step: in the first one, caches are filled
    assert seen.launches <= MARGIN * launches

    model, _ = build(stage, chain, tmp_path, **changes)
    before = [p.detach().clone() for p in trained(model)]
    for step, tasks in enumerate(fed, 1):  # the same images: a GPU may round and draw them otherwise
        model.tasks = tasks
        model.update_learning_rate(step)
        model.optimize_parameters(step)
    tolerance = device.tolerance(bf16="bf16" in str(changes) or "bfloat16" in str(changes))
    for what, expected in outcome(model, before).items():
        assert distance(found[what], expected) < tolerance[what], what


ALL_STAGES = ("mln_bicubic", "mln_meta", "teacher", "student", "baseline", "kernel")
BATCHED = [*((stage, {}) for stage in ALL_STAGES), ("student", LAST), ("baseline", LAST), ("student", PER_IMAGE)]


@pytest.mark.parametrize(("stage", "changes"), BATCHED)
def test_more_images_do_not_take_more_launches(device, chain, tmp_path, stage, changes):
    """A loop over samples is right on the CPU and ruins a GPU."""
    found = []
    for images in (2, 3):
        with device:
            of_size = {"datasets__train__images_per_task": images}
            model, batch = build(stage, chain, tmp_path, device=device.option, **changes, **of_size)
            with device.watched() as fed:
                model.feed_data(batch)
            with device.watched() as seen:
                model.optimize_parameters(1)
        found.append((fed.launches, seen.launches))
    assert found[0] == found[1]


# without noise, of which each device draws its own
CLEAN = {
    "bicubic": {"type": "bicubic"},
    "isotropic": {"type": "isotropic", "sigma": SIGMA},
    "anisotropic": ANISOTROPIC["degradation"] | {"noise_sigma_255": [0.0, 0.0]},
    "realesrgan": {
        **{"type": "realesrgan", "gaussian_noise_prob": 1.0, "gaussian_noise_prob2": 1.0},
        **{"noise_range": [0.0, 0.0], "noise_range2": [0.0, 0.0]},
    },
}


@pytest.mark.parametrize("degradation_per", ["task", "image"])
@pytest.mark.parametrize("kind", CLEAN)
def test_images_are_degraded_as_on_the_cpu(device, chain, tmp_path, kind, degradation_per):
    how = {"degradation": CLEAN[kind], "degradation_per": degradation_per, **CONTRAST}
    with device:
        model, batch = build("baseline", chain, tmp_path, device=device.option, **how)
        model.feed_data(batch)
        found = [(lq.cpu(), gt.cpu()) for lq, gt in model.tasks]
    model, batch = build("baseline", chain, tmp_path, **how)
    model.feed_data(batch)
    for (lq, gt), (expected_lq, expected_gt) in zip(found, model.tasks, strict=True):
        torch.testing.assert_close(gt, expected_gt, rtol=0, atol=1e-6)
        levels = 255 * (lq - expected_lq).abs()  # a sum of other order may be rounded to the next one
        assert levels.max() < 20
        assert levels.mean() < 0.05


@pytest.mark.parametrize(
    "degradation", [CLEAN["bicubic"], CLEAN["isotropic"], ANISOTROPIC["degradation"], REALESRGAN["degradation"]]
)
def test_feeding_waits_for_nothing_and_repeats(device, chain, tmp_path, degradation):
    with device:
        model, batch = build("baseline", chain, tmp_path, device=device.option, degradation=degradation, **CONTRAST)
        model.feed_data(batch)
        first = torch.cat([task.lq for task in model.tasks]).cpu()
        with device.watched() as seen:
            model.feed_data(batch)
        assert torch.equal(torch.cat([task.lq for task in model.tasks]).cpu(), first)
    assert seen.waits == []


def test_the_blur_kernels_of_stage_kernel_come_without_waiting(device, chain, tmp_path):
    with device:
        model, batch = build("kernel", chain, tmp_path, device=device.option)
        model.feed_data(batch)
        with device.watched() as seen:
            model.feed_data(batch)
    assert seen.waits == []
