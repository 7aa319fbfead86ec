"""bfloat16 on devices that compute in it, float32 on the others, which say so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mrda_model import precision
from mrda_utils import numerics
from tests.engine.test_step import one_step
from tests.model.test_stages import build

CPU = torch.device("cpu")


@pytest.fixture
def emulated(monkeypatch):
    """A device that would emulate bfloat16."""
    monkeypatch.setattr(numerics, "computes_bfloat16", lambda device: False)
    precision._announced.cache_clear()
    yield
    precision._announced.cache_clear()


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_networks_compute_in_bfloat16(bfloat16, name):
    with precision.autocast(CPU, name):
        assert torch.nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["none", "float32"])
def test_networks_compute_in_float32(bfloat16, name):
    with precision.autocast(CPU, name):
        assert torch.nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("mln_bicubic", {"train__amp": "bf16"}),
        ("mln_meta", {"adaptation__dtype": "bfloat16"}),
        ("student", {"train__amp": "bf16", "adaptation__dtype": "bfloat16"}),
    ],
)
def test_a_device_that_would_emulate_bfloat16_takes_the_step_of_float32(emulated, chain, tmp_path, stage, change):
    plain = one_step(stage, chain, tmp_path)
    found = one_step(stage, chain, tmp_path, **change)
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.as_tensor(value).equal(torch.as_tensor(theirs[name])) for name, value in ours.items())


def test_the_log_says_once_that_float32_is_computed(emulated, monkeypatch):
    said = []
    monkeypatch.setattr(precision.get_root_logger(), "warning", lambda text, *args: said.append(text % args))
    precision.autocast(CPU, "none")
    assert said == []
    for name in ("bf16", "bfloat16", "bf16"):
        precision.autocast(CPU, name)
    assert said == [
        "train.amp and adaptation.dtype: float32 in the place of bfloat16, which this processor does not compute in"
    ]


def test_the_processor_is_asked():
    cpuinfo = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*: (.*)", cpuinfo.read_text(), re.M) if cpuinfo.is_file() else None
    if not flags:
        pytest.skip("needs an x86 processor under Linux")
    known = {"avx512bw", "avx512dq", "avx512vl"} <= set(flags[1].split())
    if known or "avx_ne_convert" not in flags[1].split():
        assert numerics.computes_bfloat16(CPU) == known


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_representation_to_learn_keeps_the_precision_of_the_adaptation(bfloat16, chain, tmp_path, dtype):
    model, batch = build("student", chain, tmp_path, train__amp="bf16", adaptation__dtype=dtype)
    model.feed_data(batch)
    features = model.idr_target(model.tasks)
    with precision.autocast(CPU, "bf16"), torch.no_grad():
        wanted = model.den_t(features)
    assert model.teacher_idr(model.tasks).equal(wanted)
