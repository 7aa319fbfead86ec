"""RDAN guided by the true blur kernel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from basicsr.models import build_model

import mrda_model  # noqa: F401
from mrda_data import BenchmarkDataset
from mrda_data.degradation.classic import classic_degrade
from mrda_data.degradation.kernels import gaussian_kernel
from mrda_eval.evaluation import evaluate
from mrda_options import read_options
from mrda_options.command_line import parse
from mrda_utils.errors import OptionError
from tests.model.conftest import ROOT, shrunk


def options(tmp_path, **changes):
    opt = shrunk(ROOT / "options/ablation/train_kernel_x4.yml")
    opt["degradation"] |= {"kernel_size": 9}
    opt["network_g"] |= {"kernel_size": 9}
    opt |= changes
    (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
    return tmp_path / "o.yml"


@pytest.mark.parametrize("degradation_per", ["task", "image"])
def test_the_network_is_told_the_kernel_that_blurred_each_image(degradation_per, tmp_path):
    run = parse(ROOT, ["-opt", str(options(tmp_path, degradation_per=degradation_per))], is_train=True)
    model = build_model(run.opt)
    levels = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    gt = levels / 255
    model.feed_data({"gt": levels, "sample": torch.arange(8, 12)})
    kernels = torch.cat([task.kernel for task in model.tasks])
    assert kernels.shape == (4, 9, 9)
    assert len(torch.unique(kernels, dim=0)) == {"task": 2, "image": 4}[degradation_per]
    for image, lq, kernel in zip(gt, torch.cat([task.lq for task in model.tasks]), kernels, strict=True):
        sigma = fitted_sigma(kernel.double().numpy())
        task = {"sigma_x": sigma, "sigma_y": sigma, "theta": 0.0, "noise_sigma_255": 0.0}
        expected = classic_degrade(image[None], task, 4, 9, torch.Generator())[0]
        torch.testing.assert_close(lq, expected, rtol=0, atol=1.01 / 255)
        assert (lq == expected).float().mean() > 0.99  # but for rounding
    losses = model.compute_losses(model.tasks, 1)
    by_hand = (model.net_g(torch.cat([task.lq for task in model.tasks]), kernels) - gt).abs().mean()
    assert losses["l_pix"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def fitted_sigma(kernel):
    """Width of a Gaussian kernel: log k(0) - log k(1) = 1 / (2 sigma^2)."""
    centre = len(kernel) // 2
    return float((2 * np.log(kernel[centre, centre] / kernel[centre, centre + 1])) ** -0.5)


def test_in_a_test_the_kernel_is_that_of_the_protocol(tmp_path):
    run = parse(ROOT, ["-opt", str(options(tmp_path))], is_train=True)
    model = build_model(run.opt)
    opt = {"name": "x", "dataroot_gt": "bundled:test", "max_images": 1, "max_side": 48, "protocol": "width"}
    dataset = BenchmarkDataset({**opt, "scale": 4, "kernel_size": 9})
    seen = []
    model.net_g_ema.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    for _ in evaluate({"x": model.restorer()}, dataset, [], torch.device("cpu")):
        pass
    expected = [gaussian_kernel(sigma, sigma, 0.0, 9) for sigma in (1e-3, 1.2, 2.4, 3.6)]
    assert expected[0][4, 4] == 1
    torch.testing.assert_close(torch.cat(seen), torch.stack(expected).float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degradation": {"type": "isotropic", "sigma": [1.0, 2.0]}}, "network_g.kernel_size: 9, but .* is 21"),
        ({"degradation": {"type": "realesrgan"}}, "degradation"),
        ({"network_g": {"type": "MRDANet"}}, "MRDANet' is not known here, did you mean 'MRDAKernelNet'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        read_options(options(tmp_path, **changes), True, [])
