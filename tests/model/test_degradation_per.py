from __future__ import annotations

import pytest
import torch

from mrda_data.degradation import IsotropicDegradation
from mrda_model.adaptation import stack
from mrda_model.degraded_tasks import DegradedTasks
from mrda_utils.checkpoint import load
from mrda_utils.seeding import torch_generator
from tests.model.conftest import stage_options, train

REAL = {"degradation": {"type": "realesrgan"}, "train__total_iter": 2, "logger__save_checkpoint_freq": 2}


class Marks:
    """Degradation that writes a task's number into its images, and counts calls."""

    def sample(self, generator):
        return {"number": torch.rand((), generator=generator).item()}

    def apply(self, gt, task, generator):
        return torch.full_like(gt, task["number"])


def degraded(degradation_per, samples, images_per_task=2):
    opt = {
        "scale": 4,
        "manual_seed": 0,
        "degradation": {"type": "bicubic"},
        "degradation_per": degradation_per,
        "datasets": {"train": {"images_per_task": images_per_task, "gt_size": 4}},
    }
    degraded_tasks = DegradedTasks(opt, torch.device("cpu"))
    degraded_tasks.degradation = Marks()
    return degraded_tasks(
        {"gt": torch.zeros(len(samples), 3, 4, 4, dtype=torch.uint8), "sample": torch.tensor(samples)}
    )


def test_images_of_a_task_share_a_draw():
    tasks = degraded("task", [4, 5, 6, 7])
    first, second = tasks
    assert first.lq.unique().numel() == second.lq.unique().numel() == 1
    assert first.lq[0, 0, 0, 0] != second.lq[0, 0, 0, 0]
    assert torch.equal(stack(tasks).lq, torch.cat([first.lq, second.lq]))


def test_per_image_every_image_has_a_draw_that_depends_on_its_sample_alone():
    tasks = degraded("image", [4, 5, 6, 7])
    assert [len(task.lq) for task in tasks] == [2, 2]
    assert stack(tasks).lq[:, 0, 0, 0].unique().numel() == 4
    assert torch.equal(stack(degraded("image", [6, 7], images_per_task=1)).lq, stack(tasks).lq[2:])


def test_with_degrade_size_no_pixel_depends_on_a_reflected_border():
    sharp = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    opt = {
        "scale": 4,
        "manual_seed": 0,
        "degradation": {"type": "isotropic", "sigma": [3.0, 3.0], "kernel_size": 21},
        "degradation_per": "task",
        "datasets": {"train": {"images_per_task": 2, "gt_size": 64, "degrade_size": 96}},
    }
    (task,) = DegradedTasks(opt, torch.device("cpu"))(
        {"gt": sharp[..., 32:128, 32:128], "sample": torch.tensor([0, 1])}
    )
    assert torch.equal(task.gt, (sharp / 255)[..., 48:112, 48:112])
    whole = IsotropicDegradation(scale=4, sigma=(3.0, 3.0))
    lq = whole.apply(sharp / 255, whole.sample(torch_generator(0, "any")), torch_generator(0, "any"))
    torch.testing.assert_close(task.lq, lq[..., 12:28, 12:28], atol=1e-3, rtol=0)  # of the whole image, not of the crop
    opt["datasets"]["train"] |= {"degrade_size": 64}
    (plain,) = DegradedTasks(opt, torch.device("cpu"))(
        {"gt": sharp[..., 48:112, 48:112], "sample": torch.tensor([0, 1])}
    )
    assert (plain.lq - task.lq).abs().max() > 0.02


@pytest.mark.parametrize("degradation_per", ["task", "image"])
def test_a_teacher_trains_on_realesrgan_degradations(tmp_path, degradation_per):
    for stage in ("mln_bicubic", "mln_meta"):
        train(stage_options(stage, tmp_path, **(REAL if stage == "mln_meta" else {"train__total_iter": 1})))
    how = {"degradation_per": degradation_per, "adaptation__adapt_per": degradation_per}
    run = train(stage_options("teacher", tmp_path, **REAL, **how))
    weights = load(run / "models/net_g_latest.pth")["params"]
    assert all(tensor.isfinite().all() for tensor in weights.values())
