"""Cached tensors that inference asked for first: a training in the same process can use them."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

from mrda_arch import collapse
from mrda_arch.arch_util import Upscaler
from mrda_data.degradation import jpeg, sharpen
from mrda_data.degradation.noise import add_poisson_noise
from mrda_metric import lpips
from mrda_model.adaptation import Adaptation, super_resolve
from mrda_utils import resize
from tests.metric.test_lpips import alexnet
from tests.model.conftest import ROOT
from tests.model.test_stages import build

CACHES = {
    "mrda_utils.resize._taps": lambda x: resize.imresize(x, 0.25),
    "mrda_data.degradation.sharpen._smoothing": sharpen.usm_sharpen,
    "mrda_data.degradation.jpeg._jpeger": lambda x: jpeg.jpeg(x, 50),
    "mrda_data.degradation.noise._urns": lambda x: add_poisson_noise(x, 1.0, False, torch.Generator().manual_seed(0)),
    "mrda_metric.lpips.lpips_network": lambda x: lpips.lpips_network(Path("alexnet.pth"))(x, 1 - x),
}

OTHERS = {"mrda_model.precision._announced"}  # keep no tensors


def found() -> dict:
    """Every function with a cache, by module and name."""
    packages = [importlib.import_module(path.parent.name) for path in ROOT.glob("mrda_*/__init__.py")]
    names = [
        info.name for package in packages for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    functions = [f for name in names for f in vars(importlib.import_module(name)).values() if hasattr(f, "cache_clear")]
    return {f"{f.__module__}.{f.__name__}": f for f in functions if f.__module__.startswith("mrda_")}


def gradient(function):
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    function(x).sum().backward()
    return x.grad


def test_every_cache_is_looked_at_here():
    assert found().keys() == CACHES.keys() | OTHERS


@pytest.mark.parametrize("name", CACHES)
def test_what_inference_has_cached_serves_a_training(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(alexnet(), "alexnet.pth")
    cache, function = found()[name], CACHES[name]
    cache.cache_clear()
    expected = gradient(function)
    cache.cache_clear()
    with torch.inference_mode():
        function(torch.rand(1, 3, 64, 64))
    assert cache.cache_info().misses
    assert torch.equal(gradient(function), expected)


def test_an_upscaler_that_inference_has_collapsed_serves_a_training():
    upscaler = Upscaler(3, 3, 4).requires_grad_(False)
    with torch.inference_mode():
        made = collapse.collapsed(upscaler, 4)
    assert collapse.collapsed(upscaler, 4) is made
    torch.testing.assert_close(gradient(made), gradient(upscaler), rtol=1e-4, atol=1e-5)
    assert gradient(lambda x: made(x[..., :2, :2])).any()  # layer by layer


@pytest.mark.parametrize("stage", ["mln_meta", "teacher"])
def test_a_stage_trains_after_inference_with_its_mln(chain, tmp_path, stage):
    for cache in found().values():
        cache.cache_clear()
    model, batch = build(stage, chain, tmp_path)
    mln = model.net_g if stage == "mln_meta" else model.idr_target.mln
    lq = torch.rand(1, 3, 12, 12)
    with torch.inference_mode():
        super_resolve(mln, dict(mln.body.named_parameters()), lq, resize.imresize(lq, 4), Adaptation(inner_lrs=()))
    model.feed_data(batch)
    model.optimize_parameters(1)
    assert model.skipped_steps() == (0, 0)
