from __future__ import annotations

import copy
import shutil

import pytest
import torch
import yaml
from basicsr.models import build_model

from mrda_arch import MLN
from mrda_data import GTDataset
from mrda_model import training_state
from mrda_model.adaptation import stack
from mrda_options.command_line import parse
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError
from mrda_utils.errors import UserError
from tests.model.conftest import ROOT, STAGES, stage_options, train


def build(stage, chain, tmp_path, **changes):
    """Model of a stage on the chain's checkpoints, and one batch."""
    import mrda_loss  # noqa: F401
    import mrda_model  # noqa: F401

    (tmp_path / "o.yml").write_text(yaml.safe_dump(stage_options(stage, chain, **changes)))
    opt = parse(ROOT, ["-opt", str(tmp_path / "o.yml")], is_train=True).opt
    dataset = GTDataset(opt["datasets"]["train"])
    samples = [dataset[i] for i in range(4)]
    batch = {"gt": torch.stack([s["gt"] for s in samples]), "sample": torch.tensor([s["sample"] for s in samples])}
    return build_model(opt), batch


def weights(run, name="net_g_latest.pth"):
    content = checkpoint.load(run / "models" / name)
    return {f"{key}.{name}": t for key in ("params", "params_ema") for name, t in content[key].items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_leaves_weights_states_log_and_options(chain, stage):
    run = chain / f"demo_{stage}_x4"
    files = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and p.suffix != ".log")
    assert files == [
        f"demo_{stage}_x4.yml",
        "events.jsonl",
        "models/net_g_3.pth",
        "models/net_g_6.pth",
        "models/net_g_latest.pth",
        "training_states/3.state",
        "training_states/6.state",
    ]
    log = next(run.glob("*.log")).read_text()
    assert log.count("iter:       2") == log.count("iter:       6") == 1
    assert not equal(weights(run, "net_g_3.pth"), weights(run, "net_g_6.pth"))
    assert equal(weights(run, "net_g_6.pth"), weights(run))


@pytest.mark.parametrize("stage", STAGES)
def test_loss_falls_on_one_batch(chain, tmp_path, stage):
    lr = {"mln_bicubic": 2e-3, "mln_meta": 5e-3}.get(stage, 5e-3)
    model, batch = build(stage, chain, tmp_path, train__optim_g__lr=lr, train__scheduler__milestones=[])
    losses = []
    for i in range(1, 41):
        model.update_learning_rate(i)
        model.feed_data(batch)
        model.optimize_parameters(i)
        losses.append(model.get_current_log())
    for name in losses[0]:
        first, last = (sum(log[name] for log in part) for part in (losses[:5], losses[-5:]))
        assert last < 0.99 * first, name


@pytest.mark.parametrize("stage", ["mln_meta", "teacher", "student"])
def test_frozen_networks_stay_bit_identical_and_out_of_the_checkpoint(chain, tmp_path, stage):
    model, batch = build(stage, chain, tmp_path)
    frozen = {
        "mln_meta": lambda: [model.net_g.upscaler],
        "teacher": lambda: [model.idr_target.mln],
        "student": lambda: [model.idr_target.mln, model.den_t],
    }[stage]()
    before = [copy.deepcopy(net.state_dict()) for net in frozen]
    for i in range(1, 4):
        model.feed_data(batch)
        model.optimize_parameters(i)
    for net, state in zip(frozen, before, strict=True):
        assert all(torch.equal(state[name], t) for name, t in net.state_dict().items())
        assert all(not p.requires_grad and p.grad is None for p in net.parameters())
    trained = {id(p) for group in model.optimizer_g.param_groups for p in group["params"]}
    assert not trained & {id(p) for net in frozen for p in net.parameters()}
    if stage != "mln_meta":
        names = checkpoint.load(chain / f"demo_{stage}_x4/models/net_g_latest.pth")["params"]
        assert {name.split(".")[0] for name in names} == {"den", "rdan"}


def test_tasks_of_a_batch_differ_and_repeat(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path)
    model.feed_data(batch)
    lq = stack(model.tasks).lq
    assert len(model.tasks) == 2
    model.feed_data({"gt": batch["gt"], "sample": batch["sample"] + 4})
    assert not torch.equal(stack(model.tasks).lq, lq)
    model.feed_data(batch)
    assert torch.equal(stack(model.tasks).lq, lq)


def test_the_teacher_adapts_each_task_by_itself(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path)
    model.feed_data(batch)
    both = model.idr_target(model.tasks)
    assert torch.equal(both[2:], model.idr_target(model.tasks[1:]))


def test_the_student_starts_from_the_teachers_rdan(chain, tmp_path):
    teacher = checkpoint.load(chain / "demo_teacher_x4/models/net_g_latest.pth")["params_ema"]
    model, _ = build("student", chain, tmp_path)
    for name, tensor in model.net_g.rdan.state_dict().items():
        assert torch.equal(tensor, teacher[f"rdan.{name}"])
    model, _ = build(
        "student", chain, tmp_path, path__pretrain_network_g=str(chain / "demo_student_x4/models/net_g_latest.pth")
    )
    assert not torch.equal(model.net_g.rdan.head.weight, teacher["rdan.head.weight"])


def test_one_representation_serves_the_task(chain, tmp_path):
    model, batch = build("student", chain, tmp_path, train__idr_per="task")
    model.feed_data(batch)
    den, rdan = model.net_g.den, model.net_g.rdan
    lq, gt = stack(model.tasks)
    target = torch.randn(4, den(lq).shape[1])
    model.den_t = lambda features: target
    means = torch.stack([(target[i] + target[j]) / 2 for i, j in ((0, 1), (0, 1), (2, 3), (2, 3))])
    for current_iter, others in ((1, [1, 0, 3, 2]), (2, [0, 1, 2, 3])):  # two tasks of two images
        seen = []
        with den.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0])):
            losses = model.compute_losses(model.tasks, current_iter)
        assert torch.equal(torch.cat(seen), lq[others])
        idr = den(lq[others])
        assert losses["l_pix"].item() == pytest.approx((rdan(lq, idr) - gt).abs().mean().item(), rel=1e-5)
        assert losses["l_abs"].item() == pytest.approx(
            model.cri_kd.abs_weight * (idr - means).abs().mean().item(), rel=1e-4
        )


def test_during_kd_warm_up_den_alone_trains(chain, tmp_path):
    model, batch = build("student", chain, tmp_path, train__kd_opt__warmup_iter=2)
    before = copy.deepcopy(model.net_g.state_dict())
    model.feed_data(batch)
    for i in (1, 2):
        model.optimize_parameters(i)
        assert set(model.losses) == {"l_kl", "l_abs"}
    after = model.net_g.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("rdan"))
    assert not torch.equal(before["den.mlp.2.weight"], after["den.mlp.2.weight"])
    model.optimize_parameters(3)
    assert not torch.equal(before["rdan.head.weight"], model.net_g.rdan.head.weight)


def test_distilling_every_third_iteration_lets_mln_adapt_in_that_one_alone(chain, tmp_path):
    model, batch = build("student", chain, tmp_path, train__kd_opt__every=3)
    model.feed_data(batch)
    adapted = []
    idr_target = model.idr_target
    model.idr_target = lambda tasks: adapted.append(len(tasks)) or idr_target(tasks)
    kinds = []
    for i in range(1, 7):
        model.optimize_parameters(i)
        kinds.append(set(model.losses))
    assert adapted == [2, 2]
    assert kinds == [{"l_pix"}, {"l_pix"}, {"l_pix", "l_kl", "l_abs"}] * 2


@pytest.mark.parametrize("frozen", [True, False])
def test_meta_training_changes_the_upscaler_only_if_it_is_not_frozen(frozen, chain, tmp_path):
    bicubic = chain / "demo_mln_bicubic_x4/models/net_g_latest.pth"
    path = {"experiments_root": str(tmp_path), "pretrain_network_g": str(bicubic)}
    run = train(stage_options("mln_meta", chain, name="free", path=path, adaptation__freeze_upscaler=frozen))
    before, after = weights(chain / "demo_mln_bicubic_x4"), weights(run)
    kept = {
        n: torch.equal(before[f"params_ema.{n}"], after[f"params.{n}"]) for n, _ in MLN(num_feat=4).named_parameters()
    }
    assert kept == {name: frozen and name.startswith("upscaler.") for name in kept}


def test_the_meta_step_is_the_mean_of_its_tasks_gradients(chain, tmp_path):
    from mrda_model.adaptation import Adaptation, TaskBatch, meta_gradient

    model, batch = build("mln_meta", chain, tmp_path)
    model.feed_data(batch)
    adaptation = Adaptation(**model.opt["adaptation"])
    expected = [
        meta_gradient(model.net_g, TaskBatch(lq[:1], gt[:1]), TaskBatch(lq[1:], gt[1:]), adaptation, model.cri_pix)[1]
        for lq, gt in model.tasks
    ]
    model.optimize_parameters(1)
    for p, a, b in zip(model.net_g.body.parameters(), *expected, strict=True):
        torch.testing.assert_close(p.grad, (a + b) / 2)


def test_ema_follows_its_formula_buffers_included(chain, tmp_path):
    model, batch = build("teacher", chain, tmp_path, train__ema_decay=0.9)
    expected = copy.deepcopy(model.net_g_ema.state_dict())
    model.net_g.rdan.mean.fill_(0.25)
    for i in range(1, 4):
        model.feed_data(batch)
        model.optimize_parameters(i)
        for name, p in model.net_g.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * p.detach()
    for name, p in model.net_g_ema.named_parameters():
        torch.testing.assert_close(p, expected[name])
    assert model.net_g_ema.rdan.mean.unique().tolist() == [0.25]


@pytest.mark.parametrize(
    ("iteration", "lr"),
    [(1, 0.25e-3), (3, 0.75e-3), (4, 1e-3), (10, 1e-3), (11, 0.5e-3), (20, 0.5e-3), (21, 0.25e-3)],
)
def test_learning_rate(chain, tmp_path, iteration, lr):
    model, _ = build(
        "mln_bicubic",
        chain,
        tmp_path,
        train__optim_g__lr=1e-3,
        train__scheduler={"type": "MultiStepLR", "milestones": [10, 20], "gamma": 0.5},
    )
    model.update_learning_rate(iteration, warmup_iter=4)
    assert model.get_current_learning_rate() == [pytest.approx(lr)]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("cut", [3, 5])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(chain, tmp_path, monkeypatch, stage, cut):
    opt = stage_options(stage, chain, path__experiments_root=str(tmp_path))
    opt["train"]["total_iter"] = cut
    train(opt)
    monkeypatch.chdir(tmp_path)  # resume works from anywhere
    opt["train"]["total_iter"] = 6
    run = train(opt, "--auto_resume")
    assert equal(weights(run), weights(chain / f"demo_{stage}_x4"))
    assert not list(tmp_path.glob("*archived*"))


def test_resume_state_names_the_state(chain, tmp_path):
    state = chain / "demo_teacher_x4/training_states/3.state"
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), path__resume_state=str(state))
    assert equal(weights(train(opt)), weights(chain / "demo_teacher_x4"))


@pytest.mark.parametrize("damaged", ["training_states/6.state", "models/net_g_6.pth"])
def test_resume_falls_back_past_damage(chain, tmp_path, capsys, damaged):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), train__total_iter=6)
    run = tmp_path / "demo_teacher_x4"
    shutil.copytree(chain / "demo_teacher_x4", run)
    (run / damaged).write_bytes((run / damaged).read_bytes()[:500])
    (run / "training_states/best.state").write_text("not a number")
    assert equal(weights(train(opt, "--auto_resume")), weights(chain / "demo_teacher_x4"))
    assert "looking for an earlier state" in capsys.readouterr().out


def test_auto_resume_takes_the_newest_state_before_resume_state(chain, tmp_path):
    run = tmp_path / "demo_teacher_x4"
    shutil.copytree(chain / "demo_teacher_x4", run)
    old = str(run / "training_states/3.state")
    before = (run / "models/net_g_6.pth").stat().st_mtime_ns
    train(
        stage_options("teacher", chain, path__experiments_root=str(tmp_path), path__resume_state=old), "--auto_resume"
    )
    assert (run / "models/net_g_6.pth").stat().st_mtime_ns == before  # nothing was trained again


def test_auto_resume_without_a_usable_state_refuses_and_touches_nothing(chain, tmp_path):
    run = tmp_path / "demo_mln_bicubic_x4"
    shutil.copytree(chain / "demo_mln_bicubic_x4", run)
    for state in (run / "training_states").iterdir():
        state.write_bytes(b"damaged")
    with pytest.raises(
        CheckpointError, match=r"no checkpoint of .*demo_mln_bicubic_x4 can be used; .*6\.state: damaged"
    ):
        train(stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path)), "--auto_resume")
    assert (run / "training_states/6.state").read_bytes() == b"damaged"
    assert not list(tmp_path.glob("*archived*"))


def test_states_beyond_the_one_gone_on_from_are_abandoned(chain, tmp_path):
    """Else pruning would keep a damaged or abandoned one for its number, and delete what was just saved."""
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), logger__keep_last=1)
    run = tmp_path / opt["name"]
    shutil.copytree(chain / opt["name"], run)
    (run / "training_states/6.state").write_bytes(b"damaged")
    opt["train"]["total_iter"] = 5
    train(opt, "--auto_resume")
    assert [p.name for p in (run / "training_states").iterdir()] == ["5.state"]
    opt["train"]["total_iter"] = 6
    train(opt, "--auto_resume")
    assert equal(weights(run), weights(chain / opt["name"]))


def test_a_state_may_have_any_name(chain, tmp_path):
    run = tmp_path / "kept"
    shutil.copytree(chain / "demo_mln_bicubic_x4", run)
    (run / "training_states/3.state").rename(run / "training_states/good.state")
    (run / "models/net_g_3.pth").rename(run / "models/net_g_good.pth")
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), name="kept")
    opt["path"]["resume_state"] = str(run / "training_states/good.state")
    assert equal(weights(train(opt)), weights(chain / "demo_mln_bicubic_x4"))


def test_going_back_to_an_earlier_state_abandons_the_later_ones(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), train__total_iter=4)
    run = tmp_path / opt["name"]
    shutil.copytree(chain / opt["name"], run)
    opt["path"]["resume_state"] = str(run / "training_states/3.state")
    train(opt)
    assert [p.name for p in training_state.states(run / "training_states")] == ["4.state", "3.state"]


def test_a_state_beyond_total_iter_is_refused(chain, tmp_path):
    shutil.copytree(chain / "demo_mln_bicubic_x4", tmp_path / "demo_mln_bicubic_x4")
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), train__total_iter=4)
    with pytest.raises(UserError, match=r"train\.total_iter: 4, but .*6\.state is beyond it"):
        train(opt, "--auto_resume")


def test_a_folder_that_cannot_be_written_is_named(chain, tmp_path):
    (tmp_path / "file").touch()
    opt = stage_options("mln_bicubic", chain)
    opt["path"]["experiments_root"] = str(tmp_path / "file")
    (tmp_path / "o.yml").write_text(yaml.safe_dump(opt))
    with pytest.raises(UserError, match=r"path\.experiments_root: .*file cannot be written"):
        train_pipeline(ROOT, ["-opt", str(tmp_path / "o.yml")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_g__num_feat": 8}, "network_g.num_feat: 8, but network_t, its teacher, has 4"),
        ({"network_g__den_feat": 4}, "network_g.den_feat: 4, but network_t, its teacher, has 2"),
        ({"network_g__den_in_ch": 4}, "network_g.den_in_ch: 4, but it reads the LR image"),
    ],
)
def test_a_student_unlike_its_teacher_is_refused(chain, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train(stage_options("student", chain, path__experiments_root=str(tmp_path), **change))


def test_a_teacher_of_another_degradation_is_refused(chain, tmp_path):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), degradation__sigma=[0.2, 2.0])
    with pytest.raises(
        CheckpointError, match=r"trained on degradation 'sigma \[0.2, 4.0\]', the option file says 'sigma \[0.2, 2.0\]'"
    ):
        train(opt)


def test_resuming_with_another_degradation_is_refused(chain, tmp_path):
    state = chain / "demo_mln_bicubic_x4/training_states/3.state"
    opt = stage_options(
        "mln_bicubic",
        chain,
        path__experiments_root=str(tmp_path),
        path__resume_state=str(state),
        degradation={"type": "isotropic", "sigma": [0.2, 2.0]},
    )
    with pytest.raises(
        UserError, match=r"degradation\.type was 'bicubic', is 'isotropic', which makes it another training"
    ):
        train(opt)


def test_weights_of_the_wrong_stage_are_refused(chain, tmp_path):
    wrong = str(chain / "demo_mln_bicubic_x4/models/net_g_latest.pth")
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), path__pretrain_network_mln=wrong)
    earlier = tmp_path / "demo_teacher_x4"
    earlier.mkdir()
    with pytest.raises(CheckpointError, match="weights of stage MLNBicubicModel, expected MLNMetaModel"):
        train(opt)
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == [earlier]  # neither moved nor replaced


def test_a_second_run_of_the_same_name_archives_the_first(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path))
    first = weights(train(opt))
    train(opt)
    run = train(opt)
    archived = list(tmp_path.glob("demo_mln_bicubic_x4_archived_*"))
    assert len(archived) == 2
    assert all(equal(weights(folder), first) for folder in [*archived, run])


def test_workers_change_nothing(chain, tmp_path):
    opt = stage_options("teacher", chain, path__experiments_root=str(tmp_path), datasets__train__num_worker_per_gpu=2)
    assert equal(weights(train(opt)), weights(chain / "demo_teacher_x4"))


def test_another_seed_gives_another_run(chain, tmp_path):
    opt = stage_options("mln_bicubic", chain, path__experiments_root=str(tmp_path), manual_seed=1)
    assert not equal(weights(train(opt)), weights(chain / "demo_mln_bicubic_x4"))


def test_validation_reports_the_averaged_weights_and_keeps_the_best(chain, tmp_path):
    val = {"name": "Held", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "gaussian8"}
    opt = stage_options(
        "teacher",
        chain,
        path__experiments_root=str(tmp_path),
        datasets__val={**val, "max_images": 1, "max_side": 48},
        val={"val_freq": 3, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}}},
        logger__use_tb_logger=True,
    )
    run = train(opt)
    log = next(run.glob("*.log")).read_text()
    assert log.count("Validation Held") == 2  # at iterations 3 and 6, the end
    best = checkpoint.load(run / "training_states/6.state")["best_metric_results"]["Held"]["psnr"]
    assert 10 < best["val"] < 60
    assert f"Best: {best['val']:.4f} @ {best['iter']} iter" in log
    first = checkpoint.load(run / "training_states/3.state")["best_metric_results"]
    assert first["Held"]["psnr"]["iter"] == 3  # validated before it was saved
    assert any((run / "tb_logger").iterdir())
    assert equal(weights(run), weights(chain / "demo_teacher_x4"))  # validating changes nothing
