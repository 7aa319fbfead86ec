from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import mrda_arch  # noqa: F401
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_options import force, read_options, validate
from mrda_utils.errors import OptionError
from mrda_utils.yaml_text import parse_yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(p for kind in ("train", "test") for p in (ROOT / "options").rglob(f"{kind}_*.yml"))
TEACHER = ROOT / "options/demo/train_teacher_x4.yml"


def is_train(path):
    return path.name.startswith("train")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "options").as_posix())
def test_every_shipped_file_validates(path):
    opt, text = read_options(path, is_train(path), [])
    assert opt["name"].endswith(path.stem.removeprefix("train_").removeprefix("test_"))
    assert text == path.read_text()


def test_shipped_names_are_distinct():
    names = [parse_yaml(path.read_text(), str(path))["name"] for path in FILES]
    assert len(names) == len(set(names))


def test_numbers_are_numbers():
    text = "[1e-4, 5e3, -1E+2, 1.5e-3, .5e1, 7, 1_000, 0.5, e5, 1e]"
    assert parse_yaml(text, "x") == [1e-4, 5e3, -1e2, 1.5e-3, 5.0, 7, 1000, 0.5, "e5", "1e"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch executed']", "could not determine a constructor"),
        ("a: 1\nb: 2\na: 3", "key 'a' appears twice"),
        ("a: [1, 2", "x line 1: no valid YAML"),
        ("a: &x [*x, *y]", "no valid YAML"),
        ("a: 2024-13-45", "no valid YAML"),
    ],
)
def test_bad_yaml_is_refused_and_not_executed(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        parse_yaml(text, "x")
    assert not list(tmp_path.iterdir())


def test_merge_keys_are_plain_yaml():
    assert parse_yaml("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2", "x")["b"] == {"x": 1, "y": 2}
    assert parse_yaml("a: &a {x: 1, y: 1}\nb: &b\n  <<: *a\n  y: 2\nc: {<<: *b, x: 3}", "x")["c"] == {"x": 3, "y": 2}


def changed(*entries):
    return lambda: read_options(TEACHER, True, list(entries))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("train:ema_deacy=0.9", "train: unknown key 'ema_deacy', did you mean 'ema_decay'?"),
        ("datasets:train:use_hflp=true", "datasets.train: unknown key 'use_hflp', did you mean 'use_hflip'?"),
        ("network_g:num_fea=8", "network_g: unknown key 'num_fea', did you mean 'num_feat'?"),
        ("network_g:num_feat=wide", "network_g.num_feat: 'wide': Input should be a valid integer"),
        ("network_g:type=MRDANett", "network_g: type: 'MRDANett' is not known here, did you mean 'MRDANet'?"),
        ("network_g:type=EDSR", "network_g: type: 'EDSR' is not known here"),
        ("network_g:type=[a]", "network_g: type: "),
        (
            "datasets:val={name: V, type: GTDataset, dataroot_gt: x, gt_size: 96, images_per_task: 1}",
            "datasets.val: it takes a B",
        ),
        ("val:metrics:psnr:input_order=CHW", "unknown key 'input_order'"),
        ("val:metrics:psnr:test_y_channel=yes please", "test_y_channel: 'yes please'"),
        ("network_g:num_feat=-1", "network_g: num_feat: -1 is not between 1 and 1024"),
        ("network_g:num_in_ch=1", "network_g: .*global_residual needs num_in_ch == num_out_ch"),
        ("datasets:train:dataroot_gt=bundled:trian", "'bundled:trian', did you mean 'bundled:train'?"),
        ("train:pixel_opt:type=GANLoss", "type: 'GANLoss' is not known here"),
        ("train:pixel_opt:reduction=none", "train.pixel_opt.reduction: 'none'"),
        ("val:metrics:psnr:type=calculate_psnr_pt", "type: 'calculate_psnr_pt' is not known here"),
        ("val:metrics:psnr:crop_border=four", "val.metrics.psnr.crop_border: 'four'"),
        ("model_type=[a]", "model_type: "),
        ("manual_seed=9223372036854775808", "manual_seed"),
        ("adaptation:dtype=float16", "adaptation.dtype: 'float16'"),
        ("network_g:upsampler=nearest", "network_g.upsampler: 'nearest': Input should be 'pixelshuffle'"),
        ("train:pixel_opt:type=L1Los", "did you mean 'L1Loss'?"),
        ("train:pixel_opt:loss_wieght=1", "unknown key 'loss_wieght', did you mean 'loss_weight'?"),
        ("val:metrics:psnr:test_y_chanel=true", "unknown key 'test_y_chanel', did you mean 'test_y_channel'?"),
        ("degradation={sigma: [0, 1]}", "degradation.type: missing"),
        ("train:scheduler:type=1", "train.scheduler.type: '1', known: MultiStepLR, CosineAnnealingLR"),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [9]}",
            r"scheduler.periods: \[9\] end before total_iter: ",
        ),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [9, 9]}",
            r"restart_weights: \[1\], needs one for each of periods \[9, 9\]",
        ),
        ("train:total_iter=ten", "train.total_iter: 'ten': Input should be a valid integer"),
        ("train:total_iter=0", "train.total_iter: 0: Input should be greater than or equal to 1"),
        ("train:optim_g:lr=-1e-4", "train.optim_g.lr: -0.0001: Input should be greater than 0"),
        ("train:scheduler:milestones=[5, 3]", r"train.scheduler.milestones: \[5, 3\] must ascend"),
        ("datasets:train:use_rot=1", "datasets.train.use_rot: 1: Input should be a valid boolean"),
        ("datasets:train:gt_size=97", "datasets.train.gt_size: 97 is no multiple of scale 4"),
        ("degradation:sigma=[4.0, 0.2]", "degradation.sigma: .* is no range"),
        ("datasets:train:gt_size=8", "datasets.train.gt_size: 8 is too small for kernel_size 21"),
        ("val:metrics:psnr:better=bigger", "better: 'bigger'"),
        ("degradation:kernel_size=20", "degradation.kernel_size: 20 is even"),
        (
            "degradation_per=image",
            "degradation_per: 'image', but MLN adapts to a task: set adaptation.adapt_per to image",
        ),
        ("degradation_per=batch", "degradation_per: 'batch': Input should be 'task' or 'image'"),
        ("degradation:type=isotropc", "degradation.type: 'isotropc', did you mean 'isotropic'?"),
        ("model_type=MRDATeacher", "model_type: 'MRDATeacher', did you mean 'MRDATeacherModel'?"),
        ("scale=5", "scale: 5: Input should be 2, 3 or 4"),
        ("name=../x", "name: '../x'"),
        ("manual_seed=-1", "manual_seed: -1"),
        ("num_gpu=auto", "unknown key 'num_gpu'"),
    ],
)
def test_mistakes_name_key_and_value(entry, message):
    with pytest.raises(OptionError, match=message):
        changed(entry)()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sinc_prb", 0.1, "degradation: unknown key 'sinc_prb', did you mean 'sinc_prob'?"),
        ("sinc_prob", 1.1, "degradation.sinc_prob: 1.1: Input should be less than or equal to 1"),
        ("resize_prob", [0.2, 0.7, 0.2], r"degradation.resize_prob: \[0.2, 0.7, 0.2\] must sum to 1, not 1.1"),
        ("resize_prob2", [0.5, 0.5], "degradation.resize_prob2: .* at least 3 items"),
        ("resize_range", [0.15, 0.9], r"degradation.resize_range: \[0.15, 0.9\] must contain 1"),
        ("resize_range2", [0.0, 1.2], "degradation.resize_range2.0: 0.0: Input should be greater than 0"),
        ("betag_range", [1.5, 4.0], "degradation.betag_range: .* must contain 1"),
        ("kernel_list", ["iso", "round"], "degradation.kernel_list.1: 'round': Input should be 'iso'"),
        ("kernel_list", ["iso", "aniso"], "degradation: kernel_prob: 6 values, but kernel_list has 2"),
        ("kernel_prob2", [0.5, 0.5], "degradation: kernel_prob2: 2 values, but kernel_list2 has 6"),
        ("jpeg_range", [30, 100], "degradation.jpeg_range.1: 100.*: Input should be less than 100"),
        ("noise_range", [30, 1], "degradation.noise_range: .* is no range"),
        ("blur_kernel_size", 20, "degradation.blur_kernel_size: 20 is even"),
        ("blur_kernel_size2", 5, "degradation.blur_kernel_size2: 5: Input should be greater than or equal to 7"),
    ],
)
def test_mistakes_in_realesrgan_name_key_and_value(key, value, message):
    opt = parse_yaml(TEACHER.read_text(), "x") | {"degradation": {"type": "realesrgan", key: value}}
    with pytest.raises(OptionError, match=message):
        validate(opt, True, "x")


def test_degradation_per_image_needs_adaptation_per_image_and_no_meta_stage():
    both = ["degradation_per=image", "adaptation:adapt_per=image"]
    assert changed(*both)()[0]["degradation_per"] == "image"
    meta = ROOT / "options/demo/train_mln_meta_x4.yml"
    with pytest.raises(OptionError, match=r"degradation_per: 'image', but query images test .*: use task"):
        read_options(meta, True, ["degradation_per=image"])


def test_a_representation_for_the_task_needs_images_degraded_alike():
    entries = ["train:idr_per=task", "degradation_per=image", "adaptation:adapt_per=image"]
    with pytest.raises(OptionError, match=r"train\.idr_per: 'task', .*: set degradation_per to task"):
        read_options(ROOT / "options/demo/train_student_x4.yml", True, entries)


@pytest.mark.parametrize("key", ["name", "train", "datasets", "degradation", "network_g", "network_mln", "path"])
def test_a_missing_section_is_named(key):
    opt = parse_yaml(TEACHER.read_text(), "x")
    del opt[key]
    with pytest.raises(OptionError, match=rf"^x: {key}: missing$"):
        validate(opt, True, "x")


def test_all_mistakes_are_told_at_once():
    with pytest.raises(OptionError) as caught:
        changed("train:total_iter=0", "scale=5")()
    assert "train.total_iter" in str(caught.value)
    assert "scale: 5" in str(caught.value)


def test_force_yml_parses_yaml_and_executes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = {"train": {"lr": 1}}
    force(opt, ["train:lr=1e-4", "train:milestones=[1, 2]", "name=a=b", 'train:x=__import__("os").system("touch y")'])
    assert opt == {
        "train": {"lr": 1e-4, "milestones": [1, 2], "x": '__import__("os").system("touch y")'},
        "name": "a=b",
    }
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("entry", ["train", "name:x=1"])
def test_force_yml_mistakes(entry):
    with pytest.raises(OptionError, match=f"--force_yml {entry}"):
        changed(entry)()


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]"])
def test_a_file_without_sections_is_refused(tmp_path, text):
    (tmp_path / "o.yml").write_text(text)
    with pytest.raises(OptionError, match=r"o\.yml"):
        read_options(tmp_path / "o.yml", True, [])
    with pytest.raises(OptionError, match="cannot be read"):
        read_options(tmp_path / "none.yml", True, [])


def test_an_oracle_needs_all_its_parts():
    path = ROOT / "options/demo/test_gaussian8_x4.yml"
    opt = parse_yaml(path.read_text(), "x")
    with pytest.raises(OptionError, match=r"network_g, path\.pretrain_network_g: one of them is missing"):
        validate({key: value for key, value in opt.items() if key != "network_g"}, False, "x")
    del opt["network_mln"]
    with pytest.raises(OptionError, match="network_mln: missing, the teacher's row needs all of"):
        validate(opt, False, "x")


def test_defaults_are_filled_in():
    opt, _ = read_options(TEACHER, True, [])
    assert opt["train"]["optim_g"]["betas"] == [0.9, 0.999]
    assert opt["network_g"]["num_in_ch"] == 3
    assert yaml.safe_load(yaml.safe_dump(opt)) == opt
