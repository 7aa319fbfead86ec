"""Leaving the process group: it must not hang when another process is gone."""

from __future__ import annotations

import time
from threading import Event
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from mrda_pipeline import process_group


@pytest.fixture
def group(monkeypatch):
    """A stand-in for the process group: what was asked of it, and the backends and answers that it has."""
    asked = []
    group = SimpleNamespace(asked=asked, backends="cpu:gloo,cuda:nccl", destroy=lambda: None, abort=lambda: None)

    def ask(what):
        asked.append(what)
        getattr(group, what)()

    monkeypatch.setattr(process_group, "PATIENCE", 0.2, raising=False)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_backend_config", lambda: group.backends)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: ask("destroy"))
    monkeypatch.setattr(dist, "group", SimpleNamespace(WORLD=SimpleNamespace(abort=lambda: ask("abort"))))
    return group


def failing():
    """What the pipelines do when something goes wrong in them."""
    try:
        raise ValueError("what went wrong")
    finally:
        process_group.stop()


def test_a_good_end_waits_for_what_is_pending(group):
    process_group.stop()
    assert group.asked == ["destroy"]


def test_after_an_error_nccl_is_aborted_since_destroying_it_would_wait_for_ever(group):
    group.destroy = lambda: Event().wait(20)
    with pytest.raises(ValueError, match="what went wrong"):
        failing()
    assert group.asked == ["abort"]


@pytest.mark.parametrize(("backends", "what"), [("cpu:gloo,cuda:nccl", "abort"), ("cpu:gloo,cuda:gloo", "destroy")])
def test_after_an_error_leaving_that_hangs_is_given_up(group, backends, what):
    group.backends = backends
    release = Event()
    setattr(group, what, lambda: release.wait(20))
    start = time.monotonic()
    with pytest.raises(ValueError, match="what went wrong"):
        failing()
    assert time.monotonic() - start < 5
    assert group.asked == [what]
    release.set()


def test_the_error_is_told_even_if_leaving_fails(group, capsys):
    def fail():
        raise RuntimeError("NCCL: unhandled")

    group.abort = fail
    with pytest.raises(ValueError, match="what went wrong"):
        failing()
    assert capsys.readouterr().err == ""
