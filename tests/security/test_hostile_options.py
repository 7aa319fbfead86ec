"""Option files of a stranger."""

from __future__ import annotations

import contextlib
import time

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mrda_data.degradation import build_degradation
from mrda_options import read_options, validate
from mrda_utils.errors import OptionError, UserError
from mrda_utils.seeding import torch_generator
from mrda_utils.yaml_text import parse_yaml
from tests.model.conftest import ROOT, STAGES
from tests.security.conftest import LONG, SHORT

FILES = {stage: (ROOT / f"options/demo/train_{stage}_x4.yml").read_text() for stage in STAGES}
FILES["test"] = (ROOT / "options/demo/test_gaussian8_x4.yml").read_text()


def nine_of_each(first: str, each: str) -> str:
    """Nine lines, each of which names the one before it nine times."""
    return f"a: &a {first}\n" + "".join(
        f"{new}: &{new} {each % ','.join([f'*{old}'] * 9)}\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    )


TEXTS = {
    "python call": "!!python/object/apply:os.system ['touch executed']",
    "python object": "a: !!python/object/new:os.system ['touch executed']",
    "python name": "a: !!python/name:os.system",
    "python module": "a: !!python/module:antigravity",
    "python call, tag in full": "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch executed']",
    "billion laughs": nine_of_each("[x,x,x,x,x,x,x,x,x]", "[%s]"),
    "billion merges": nine_of_each("{x: 1}", "{<<: [%s]}"),
    "list within itself": "a: &a [*a]",
    "mapping within itself": "a: &a {b: *a}",
    "brackets": "[" * 1500,
    "dashes": "- " * 5000,
    "braces": "{a: " * 3000,
    "hexadecimal without end": "a: 0x" + "F" * 50_000,
    "base 60 without end": "a: 1" + ":1" * 40_000,
    "base 60 fraction without end": "a: 1" + ":1" * 40_000 + ".5",
    "too long": "a: " + "x" * 200_000,
    "key twice": "".join(f"k{i}: 1\n" for i in range(1000)) + "k1: 2",
    "no bool": "a: !!bool x",
    "no int": "a: !!int ''",
    "no date": "a: !!timestamp x",
    "mapping as key": "? {a: 1}\n: 2",
    "zero byte": "a: 'b\0'",
    "two documents": "--- a\n--- b\n",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_hostile_yaml_is_refused_by_name_and_nothing_runs(text, tmp_path, monkeypatch, little_memory):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"^theirs\.yml") as caught:
        parse_yaml(text, "theirs.yml")
    assert len(str(caught.value)) < 300
    assert not list(tmp_path.iterdir())


def test_aliases_of_reasonable_size_are_plain_yaml():
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]", "x")["b"] == [[1, 2], [1, 2]]


def test_a_file_without_end_is_not_read_to_the_end(little_memory):
    with pytest.raises(OptionError, match="/dev/zero: 100001 characters; an option file has at most 100000"):
        read_options("/dev/zero", True, [])


CHANGES = {
    "blocks": ("network_g:num_block=100000000", "network_g: num_block: 100000000 is not between 1 and 1024"),
    "no channels": ("network_g:num_feat=0", "network_g: num_feat: 0 is not between 1 and 1024"),
    "parameters": (
        "network_g={type: MRDANet, num_feat: 1024, num_block: 200}",
        "cannot be built: more than 1,073,741,824 parameters",
    ),
    "images": ("datasets:train:images_per_task=1000000000", "images of side 96 in a step have more than"),
    "crops": ("datasets:train:gt_size=1000000000", "have more than 268,435,456 pixels"),
    "accumulation": ("train:accumulation_steps=1000000000", "have more than 268,435,456 pixels"),
    "kernel": ("degradation:kernel_size=1000001", "less than or equal to 255"),
    "resize": ("degradation={type: realesrgan, resize_range: [0.1, 1000.0]}", "less than or equal to 16"),
    "timeout": ("dist_params:timeout=1000000000000000", "less than or equal to 1000000"),
    "name with parts": ("name=../../there", "should match pattern"),
    "absolute name": ("name=/there", "should match pattern"),
    "name with a line end": ('name="a\\nb"', "should match pattern"),
    "name that ends in a line end": ('name="a\\n"', "should match pattern"),
    "iterations": ("train:total_iter=1000000000000000000", "less than or equal to 1000000000"),
    "iterations as a float": ("train:total_iter=1e18", "valid integer"),
    "gamma": ("train:scheduler={type: MultiStepLR, milestones: [1, 2], gamma: 1.0e+308}", "leads beyond all numbers"),
    "a tiny gamma": ("train:scheduler={type: MultiStepLR, milestones: [1, 2], gamma: 1.0e-200}", "beyond all numbers"),
    "sigma": ("degradation={type: realesrgan, blur_sigma: [0.2, 1.0e+308]}", "less than or equal to 1000"),
    "a tiny sigma": ("degradation={type: realesrgan, blur_sigma2: [1.0e-308, 1.0]}", "greater than or equal to 0.001"),
    "noise": ("degradation={type: realesrgan, noise_range: [0.0, 1.0e+300]}", "less than or equal to 1000"),
    "exponent": ("degradation={type: realesrgan, betag_range: [0.5, 1.0e+300]}", "less than or equal to 1000"),
    "path with a zero byte": ('path:experiments_root="a\\0b"', "experiments_root: .*control characters"),
    "path of 5000 characters": (f"datasets:train:dataroot_gt={'x' * 5000}", "dataroot_gt: .*at most 2000 characters"),
    "name in a path": (f"path:resume_state=a/{'x' * 300}/b", "resume_state: .*more than 255 bytes"),
    "path with ESC": ('path:pretrain_network_t="\\x1b[2J"', "pretrain_network_t: .*control characters"),
    "label with ESC": ('datasets:train:name="\\x1b[2J"', "name: .*control characters"),
    "endless name": (f"name={'a' * 300}", "at most 100 characters"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_sizes_and_names_beyond_reason_are_refused(change, message, little_memory):
    with pytest.raises(OptionError, match=message):
        read_options(ROOT / "options/demo/train_student_x4.yml", True, [change])


RCAN = "type: RCAN, num_in_ch: 3, num_out_ch: 3, upscale: 4, squeeze_factor: 16, num_feat: 16"
SWIN = (
    "type: SwinIR, in_chans: 3, upscale: 4, embed_dim: 2, num_heads: [1], mlp_ratio: 2.0, img_range: 1.0, upsampler: ''"
)
ECBSR = "type: ECBSR, num_in_ch: 3, num_out_ch: 3, with_idt: false, act_type: prelu, scale: 4"
NETWORKS = {
    "blocks of blocks": (f"{RCAN}, num_group: 1024, num_block: 1024", "more than 10,000 layers"),
    "masks": (f"{SWIN}, img_size: 1000, window_size: 100, depths: [2]", "numbers in its buffers"),
    "a window": (f"{SWIN}, img_size: 1000, window_size: 1000, depths: [1]", "numbers in its buffers"),
    "many layers of it": (f"{SWIN}, img_size: 64, window_size: 32, depths: [1024]", "numbers in its buffers"),
    "list of depths": (
        f"{SWIN.replace('[1]', str([1] * 500))}, img_size: 1, window_size: 1, depths: {[9] * 500}",
        "layers",
    ),
    "hidden channels": (
        f"{SWIN.replace('2.0', '1.0e+12')}, img_size: 8, window_size: 8, depths: [1]",
        "cannot be built",
    ),
    "no meta device": (f"{ECBSR}, num_block: 1024, num_channel: 1024", "more than 67,108,864 parameters"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("network", "message"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_counted_while_it_is_built(network, message, little_memory):
    started = time.process_time()
    with pytest.raises(OptionError, match=rf"baselines\.X\.network: .*{message}"):
        read_options(
            ROOT / "options/demo/test_gaussian8_x4.yml",
            False,
            [f"baselines={{X: {{path: x, network: {{{network}}}}}}}"],
        )
    assert time.process_time() - started < 10


def test_pictures_without_number_are_refused():
    with pytest.raises(OptionError, match=r"panels: 1000000000: .*less than or equal to 1000"):
        read_options(ROOT / "options/demo/test_gaussian8_x4.yml", False, ["panels=1000000000"])


def test_a_long_value_is_shortened_and_many_mistakes_are_counted():
    opt = parse_yaml(FILES["teacher"], "x")
    opt["train"]["total_iter"] = "x" * 50_000
    opt["adaptation"]["inner_lrs"] = ["x"] * 1000
    with pytest.raises(OptionError, match="and 991 more") as caught:
        validate(opt, True, "theirs.yml")
    assert len(str(caught.value)) < 1500


def test_control_characters_never_reach_the_terminal():
    shown = str(UserError("a\x1b]0;title\x07 \x9b31m \u2028 b\r\udcff\n  c"))
    assert shown == "a\\x1b]0;title\\x07 \\x9b31m \\u2028 b\\r\\udcff\n  c"
    assert len(str(UserError("x" * 10**6))) < 3000


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 300),
    st.floats(),
    st.floats(0, 3),
    st.text(max_size=12),
    st.sampled_from(["MRDANet", "MLN", "bicubic", "realesrgan", "../x", "bundled:train", "L1Loss"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@st.composite
def changed_options(draw):
    """An option file in which a few values are replaced, anywhere."""
    kind = draw(st.sampled_from(sorted(FILES)))
    opt = parse_yaml(FILES[kind], "x")
    for _ in range(draw(st.integers(1, 3))):
        section = opt
        while True:
            key = draw(st.sampled_from(sorted(section)) if section else st.text(max_size=8))
            if not isinstance(section.get(key), dict) or draw(st.integers(0, 3)) == 0:
                break
            section = section[key]
        section[key] = draw(VALUES)
    return kind, opt


def check_any_options(kind_and_opt):
    kind, opt = kind_and_opt
    with contextlib.suppress(OptionError):
        parsed = parse_yaml(yaml.safe_dump(opt), "x")
        checked = validate(parsed, kind != "test", "x")
        assert "/" not in checked["name"]


def check_any_text(text):
    with contextlib.suppress(OptionError):
        parse_yaml(text, "x")


def places(section, key):
    """Every dictionary in an option file that has a key."""
    if isinstance(section, dict):
        yield from [section] * (key in section)
        for value in section.values():
            yield from places(value, key)


@pytest.mark.parametrize("value", [[], {}, [[]], 1, None])
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (kind, key)
        for kind, text in sorted(FILES.items())
        for key in ("type", "model_type", "protocol", "dtype")
        if list(places(parse_yaml(text, "x"), key))
    ],
)
def test_a_name_that_is_none_is_refused(kind, key, value):
    for number in range(len(list(places(parse_yaml(FILES[kind], "x"), key)))):
        opt = parse_yaml(FILES[kind], "x")
        list(places(opt, key))[number][key] = value
        with pytest.raises(OptionError, match=r"\A[^\n]+(\n  [^\n]+)*\Z"):
            validate(opt, kind != "test", "x")


YAML_LIKE = st.text("abc01:-[]{}&*!#|>'\"%@,.? \n\t<", max_size=60) | st.text(max_size=60)


@settings(SHORT, max_examples=25)
@given(changed_options())
def test_any_options_are_taken_or_refused(opt):
    check_any_options(opt)


@SHORT
@given(YAML_LIKE)
def test_any_text_is_parsed_or_refused(text):
    check_any_text(text)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@LONG
@given(changed_options())
def test_any_options_are_taken_or_refused_at_length(opt):
    check_any_options(opt)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@LONG
@given(YAML_LIKE)
def test_any_text_is_parsed_or_refused_at_length(text):
    check_any_text(text)


EXTREMES = {
    "blur_sigma": (0.001, 1000.0),
    "blur_sigma2": (0.001, 1000.0),
    "betag_range": (0.001, 1000.0),
    "betap_range2": (0.001, 1000.0),
    "resize_range": (1e-300, 16.0),
    "resize_range2": (1e-300, 16.0),
    "noise_range": (0.0, 1000.0),
    "poisson_scale_range": (0.0, 1000.0),
    "poisson_scale_range2": (5e-324, 1000.0),
    "jpeg_range": (1.0, 99.9),
}


@pytest.mark.parametrize("key", EXTREMES)
def test_a_degradation_at_the_ends_of_its_ranges_gives_images(key, little_memory):
    gt = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    low, high = EXTREMES[key]
    for end in (low, high):
        pair = [min(end, 1.0), max(end, 1.0)] if key.startswith("be") or key.startswith("resize") else [end, end]
        degradation = build_degradation({"type": "realesrgan", key: pair}, 4)
        for draw in range(4):
            generator = torch_generator(draw, "extremes")
            task = degradation.sample(generator)
            lq = degradation.apply(gt, task, generator)
            assert lq.isfinite().all(), task
            assert lq.min() >= 0
            assert lq.max() <= 1
