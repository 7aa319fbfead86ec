"""Faults that a training must survive, and the count of them that `pytest` prints at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from tabulate import tabulate

from tests.engine.conftest import run_folder
from tests.model.conftest import stage_options
from tests.model.test_adversarial import GAN
from tests.reliability.processes import end, start, wait_for_a_save

VAL = {"name": "V", "type": "BenchmarkDataset", "dataroot_gt": "bundled:test", "protocol": "bicubic"}


def options(kind: str, chain: Path, root: Path, **changes) -> dict:
    """A stage, `teacher_gan` among them, of 20 short iterations that writes all that a training can write."""
    stage = kind.removesuffix("_gan")
    opt = stage_options(stage, chain, path__experiments_root=str(root), **(GAN if stage != kind else {}))
    opt["train"]["total_iter"] = 20
    opt["datasets"]["train"].update(tasks_per_gpu=1, num_worker_per_gpu=1)
    opt["datasets"]["val"] = {**VAL, "max_images": 1, "max_side": 48}
    psnr = {"type": "calculate_psnr", "crop_border": 4}
    opt["val"] = {"val_freq": 4, "save_best": "psnr", "metrics": {"psnr": psnr}}
    opt["logger"] = {"print_freq": 1, "save_checkpoint_freq": 2, "keep_last": 1, "use_tb_logger": True}
    for key, value in changes.items():
        section, key = key.split("__")
        opt[section][key] = value
    return opt


class Whole(NamedTuple):
    """A run that nothing disturbed."""

    folder: Path
    seconds: float
    """From its first save to its end."""


@pytest.fixture(scope="session")
def whole(chain, tmp_path_factory) -> Callable[[str], Whole]:
    """Function that gives the undisturbed run of a kind."""
    known: dict[str, Whole] = {}

    def run(kind: str) -> Whole:
        if kind not in known:
            opt = options(kind, chain, tmp_path_factory.mktemp(kind) / "runs")
            process = start(opt)
            wait_for_a_save(process, opt)
            saved = time.monotonic()
            assert end(process) == 0
            known[kind] = Whole(run_folder(opt), time.monotonic() - saved)
        return known[kind]

    return run


class Faults:
    """Counts what was injected and what was survived; shown at the end of the session."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self.record = record

    def injected(self, name: str, times: int = 1) -> None:
        self.record("injected", (name, times))

    def survived(self, name: str, times: int = 1) -> None:
        self.record("survived", (name, times))

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """One that happens in the body, which also looks whether anything was lost."""
        self.injected(name)
        yield
        self.survived(name)


@pytest.fixture
def faults(record_property) -> Faults:
    return Faults(record_property)


def pytest_terminal_summary(terminalreporter):
    injected, survived = Counter(), Counter()
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for report in reports:
        for kind, value in report.user_properties if getattr(report, "when", None) == "call" else ():
            if kind in ("injected", "survived"):
                name, times = value
                (injected if kind == "injected" else survived)[name] += times
            elif kind == "soak":
                terminalreporter.write_line(f"\n{value}")
    if injected:
        rows = [(name, times, survived[name]) for name, times in injected.items()]
        terminalreporter.write_line("")
        terminalreporter.write_line(tabulate(rows, ["fault", "injected", "survived"], tablefmt="github"))
