"""Teacher and student against a discriminator."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from mrda_data.degradation.sharpen import usm_sharpen
from mrda_model.adaptation import stack
from mrda_model.adversary import DRIFT_STEPS
from mrda_utils import checkpoint
from mrda_utils.errors import UserError
from tests.engine.conftest import ROOT, finish, run_folder, same_weights
from tests.model.conftest import stage_options, train
from tests.model.test_stages import build

GAN = {
    "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4},
    "train__gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
    "train__optim_d": {"type": "Adam", "lr": 1e-3},
}
STAGES = ("teacher", "student")


def weights(net):
    return copy.deepcopy(dict(net.named_parameters()))


def moved(before, net):
    return any(not torch.equal(before[name], p) for name, p in net.named_parameters())


@pytest.mark.parametrize("stage", STAGES)
def test_both_networks_train_and_the_losses_are_those_of_eq_3_and_7(chain, tmp_path, stage):
    model, batch = build(stage, chain, tmp_path, **GAN)
    g, d = weights(model.net_g), weights(model.adversary.bare)
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert moved(g, model.net_g)
    assert moved(d, model.adversary.bare)
    kd = {"l_kl", "l_abs"} if stage == "student" else set()
    assert set(model.get_current_log()) == kd | {"l_pix", "l_g_gan", "l_d_real", "l_d_fake", "colour_drift"}


def test_the_discriminators_gradient_is_that_of_a_plain_step(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, **GAN)
    model.feed_data(batch)
    reference = copy.deepcopy(model.adversary.bare).train()  # so a forward pass has its power iteration
    model.optimize_parameters(1)
    sr, gt = model.output.detach(), stack(model.tasks).gt
    fake, real = reference(torch.cat([sr, gt])).chunk(2)
    loss = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    loss = loss + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    loss.backward()
    for a, b in zip(model.adversary.bare.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(model.adversary.bare.get_buffer(name), buffer)


def test_the_generator_sees_the_discriminator_and_leaves_it_alone(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, **GAN)
    model.feed_data(batch)
    lq, gt = stack(model.tasks)
    losses = model.compute_losses(model.tasks, 1)
    sr = model.output
    expected = 0.1 * F.softplus(-model.adversary.bare(sr)).mean()  # -log sigmoid
    torch.testing.assert_close(losses["l_g_gan"], expected)
    torch.testing.assert_close(losses["l_pix"], (sr - gt).abs().mean())
    sum(losses.values()).backward()
    assert all(p.grad is None for p in model.adversary.bare.parameters())
    assert lq.grad is None


@pytest.mark.parametrize("stage", STAGES)
def test_accumulated_micro_batches_equal_one_batch(chain, tmp_path, stage):
    found = []
    for changes in ({}, {"datasets__train__tasks_per_gpu": 1, "train__accumulation_steps": 2}):
        torch.manual_seed(0)
        model, batch = build(stage, chain, tmp_path, **GAN, **changes)
        model.feed_data(batch)
        model.optimize_parameters(1)
        grads = [p.grad for net in (model.net_g, model.adversary.bare) for p in net.parameters()]
        found.append((grads, model.get_current_log()))
    for a, b in zip(*(grads for grads, _ in found), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    for name in ("l_pix", "l_g_gan", "l_d_real", "l_d_fake"):
        assert found[0][1][name] == pytest.approx(found[1][1][name], rel=1e-4)


def test_the_generator_waits_for_its_turn(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, **GAN, train__net_d_iters=2, train__net_d_init_iters=3)
    model.feed_data(batch)
    for current_iter, turn in ((1, False), (2, False), (3, False), (4, True), (5, False), (6, True)):
        g, ema, d = weights(model.net_g), weights(model.net_g_ema), weights(model.adversary.bare)
        model.optimize_parameters(current_iter)
        assert moved(g, model.net_g) == moved(ema, model.net_g_ema) == turn
        assert moved(d, model.adversary.bare)


def test_a_step_that_is_not_finite_leaves_both_networks_alone(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, **GAN)
    model.feed_data(batch)
    model.optimize_parameters(1)
    g, d = weights(model.net_g), weights(model.adversary.bare)
    model.tasks[0].gt[0, 0, 0, 0] = torch.nan
    model.optimize_parameters(2)
    assert not moved(g, model.net_g)
    assert not moved(d, model.adversary.bare)
    assert model.skipped_steps() == (1, 1)


def test_iterations_of_the_discriminator_alone_do_not_hide_a_generator_that_is_stuck(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, **GAN, train__net_d_iters=2)
    model.feed_data(batch)
    next(model.net_g.parameters()).register_hook(lambda grad: grad * torch.nan)
    g, counts = weights(model.net_g), []
    for current_iter in range(1, 7):
        d = weights(model.adversary.bare)
        model.optimize_parameters(current_iter)
        assert moved(d, model.adversary.bare)  # its own gradient is finite
        counts.append(model.skipped_steps())
    assert not moved(g, model.net_g)
    assert counts == [(0, 0), (1, 1), (1, 1), (2, 2), (2, 2), (3, 3)]


def test_usm_switches_choose_the_targets(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, **GAN, train__l1_gt_usm=True, train__gan_gt_usm=True)
    model.feed_data(batch)
    gt = stack(model.tasks).gt
    seen = []
    model.adversary.bare.register_forward_pre_hook(lambda net, args: seen.append(args[0].detach()))
    losses = model.compute_losses(model.tasks, 1)
    torch.testing.assert_close(losses["l_pix"], (model.output - usm_sharpen(gt)).abs().mean())
    model.adversary.accumulate(model.output, stack(model.tasks), 0, 1)
    torch.testing.assert_close(seen[-1].chunk(2)[1], usm_sharpen(gt))


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_equals_the_uninterrupted_one_and_keeps_its_discriminator(chain, tmp_path, stage):
    opt = stage_options(stage, chain, path__experiments_root=str(tmp_path / "cut"), logger__keep_last=1, **GAN)
    opt["train"]["total_iter"] = 4
    train(opt)
    opt["train"]["total_iter"] = 6
    cut = train(opt, "--auto_resume")
    opt["path"]["experiments_root"] = str(tmp_path / "whole")
    whole = train(opt)
    assert same_weights(cut, whole)
    assert sorted(p.name for p in cut.glob("models/*")) == [
        "net_d_6.pth",
        "net_d_latest.pth",
        "net_g_6.pth",
        "net_g_latest.pth",
    ]
    a, b = (checkpoint.load(run / "models/net_d_latest.pth")["params"] for run in (cut, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)
    ema = checkpoint.load(cut / "models/net_g_latest.pth")
    assert any(not torch.equal(ema["params"][name], ema["params_ema"][name]) for name in ema["params"])


@pytest.mark.parametrize(("first", "then"), [({}, GAN), (GAN, {})])
def test_a_state_with_and_one_without_discriminator_are_not_exchanged(chain, tmp_path, first, then):
    train(stage_options("teacher", chain, path__experiments_root=str(tmp_path), train__total_iter=2, **first))
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), name="other", **then)
    opt["path"]["resume_state"] = str(tmp_path / "demo_teacher_x4/training_states/2.state")
    with pytest.raises(UserError, match=r"2\.state: trained with(out)? network_d, the option file is with(out)? it"):
        train(opt)


def test_two_processes_equal_one_with_two_accumulation_steps(chain, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    found = {}
    for processes, steps in ((1, 2), (2, 1)):
        opt = stage_options("student", chain, train__total_iter=5, train__accumulation_steps=steps, **GAN)
        opt["datasets"]["train"]["tasks_per_gpu"] = 1
        opt["path"]["experiments_root"] = str(tmp_path / str(processes))
        finish(opt, processes=processes, script=ROOT / "tests/engine/float64_train.py")
        models = run_folder(opt) / "models"
        found[processes] = [checkpoint.load(models / f"net_{net}_latest.pth")["params"] for net in "gd"]
    for a, b in zip(*found.values(), strict=True):
        for name, tensor in a.items():
            torch.testing.assert_close(b[name], tensor, rtol=0, atol=1e-9)


def test_the_first_step_has_normalised_weights(chain, tmp_path):
    model, _ = build("teacher", chain, tmp_path, **GAN)
    conv = model.adversary.bare.conv2
    conv(torch.zeros(1, 8, 8, 8))  # recomputes `weight`, in evaluation mode
    assert torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2) == pytest.approx(1, abs=0.1)


def test_colour_drift_is_the_largest_shift_that_all_batches_share(chain, tmp_path):
    adversary = build("teacher", chain, tmp_path, **GAN)[0].adversary
    expected = torch.zeros(3)
    for step in range(3 * DRIFT_STEPS):
        lq = torch.rand(2, 3, 4, 4)
        shift = torch.tensor([10.0, 10.0, 10.0]) * (-1) ** step - torch.tensor([0.0, 3.0, 1.0])
        sr = F.interpolate(lq, scale_factor=4, mode="nearest") + shift.view(3, 1, 1) / 255
        found = adversary.colour_drift(sr, lq)
        expected += (shift - expected) / DRIFT_STEPS
    torch.testing.assert_close(found, expected.abs().max(), atol=1e-3, rtol=0)
    assert found.item() == pytest.approx(3, abs=0.3)
    adversary.colour_drift(sr * torch.nan, lq)  # a skipped step
    assert adversary.colour_drift(sr, lq).isfinite()


@pytest.mark.parametrize("vgg_type", ["vgg16", "vgg19"])
def test_the_perceptual_loss_pulls_towards_the_ground_truths_features(chain, tmp_path, vgg_type):
    opt = {**GAN, "train__perceptual_opt": {"type": "PerceptualLoss", "vgg_weights": "random", "vgg_type": vgg_type}}
    opt["train__perceptual_opt"]["layer_weights"] = {"conv1_2": 0.1, "conv2_2": 1.0}
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), train__total_iter=2, **opt)
    train(opt, "--debug")
    (log,) = tmp_path.glob("debug_*/*.log")
    assert "l_percep:" in log.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__gan_opt": None}, r"train.gan_opt: missing, adversarial training needs all of network_d"),
        ({"train__kd_opt__warmup_iter": 1}, r"train.kd_opt.warmup_iter: not with network_d"),
        ({"network_d__num_feet": 4}, "network_d: unknown key 'num_feet', did you mean 'num_feat'"),
        (
            {"train__perceptual_opt": {"type": "PerceptualLoss", "vgg_weights": "random"}},
            "vgg_weights: 'random' trains on noise; only --debug runs take it",
        ),
        (
            {"train__perceptual_opt": {"type": "PerceptualLoss"}},
            r"vgg_weights: no weights of vgg19, .*/checkpoints/vgg19-dcbb9e9d.pth does not exist; put https://",
        ),
        (
            {
                "train__perceptual_opt": {
                    "type": "PerceptualLoss",
                    "vgg_type": "vgg16",
                    "layer_weights": {"conv1_2": 1.0},
                }
            },
            r"vgg_weights: no weights of vgg16, .* `python scripts/fetch_perceptual_weights.py` fetches them; or put",
        ),
        (
            {"train__perceptual_opt": {"type": "PerceptualLoss", "vgg_type": "vgg16"}},
            r"layer_weights: vgg16 has no conv3_4, conv4_4, conv5_4",
        ),
        (
            {"train__perceptual_opt": {"type": "PerceptualLoss", "vgg_weights": "nowhere/vgg.pth"}},
            r"vgg_weights: .*nowhere/vgg.pth does not exist",
        ),
    ],
)
def test_mistakes_are_named_before_anything_starts(chain, tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    opt = stage_options("student", chain, path__experiments_root=str(tmp_path), **copy.deepcopy(GAN))
    for key, value in change.items():
        *sections, last = key.split("__")
        target = opt
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    with pytest.raises(UserError, match=message):
        train(opt)
    assert not (tmp_path / opt["name"]).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"train__perceptual_opt": {"type": "PerceptualLoss"}},
        {"train__net_d_iters": 2},
        {"train__net_d_init_iters": 1},
        {"train__gan_gt_usm": True},
        {"train__percep_gt_usm": True},
        {"path__pretrain_network_d": __file__},
    ],
)
def test_what_a_discriminator_alone_reads_is_refused_without_one(chain, tmp_path, change):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), **change)
    name = next(iter(change)).replace("__", r"\.")
    with pytest.raises(UserError, match=rf"{name}: it comes with adversarial training, network_d is missing"):
        train(opt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__percep_gt_usm": True}, r"train\.percep_gt_usm: true, but there is no perceptual loss"),
        ({"train__net_d_init_iters": 6}, r"train\.total_iter: ends before the first step of the generator"),
        ({"train__net_d_iters": 7}, r"train\.total_iter: ends before the first step of the generator"),
    ],
)
def test_options_that_leave_the_adversary_without_use_are_refused(chain, tmp_path, change, message):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), **GAN, **change)
    with pytest.raises(UserError, match=message):
        train(opt)
