from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

from mrda_model.precision import _announced
from mrda_utils import compat  # noqa: F401  (before anything imports BasicSR)


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow as well")
    parser.addoption("--openvino", action="store_true", help="run the tests marked openvino, and no others")
    parser.addoption(
        "--device", choices=["mock", "cuda"], default="mock", help="where the tests of tests/device compute"
    )
    parser.addoption("--soak-minutes", type=float, default=3, help="length of the slow test that watches memory")


def pytest_configure():
    # a shell ignores SIGINT in what it runs in the background, and programs that tests start would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # nohup ignores it likewise
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config, items):
    # in a process of their own: after OpenVINO has computed in a process that has used LMDB and forked, the next
    # subprocess ends it with a segmentation fault
    alone = config.getoption("--openvino")
    others = [item for item in items if (item.get_closest_marker("openvino") is not None) != alone]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    # at the end: the device that they register stays in the process
    items.sort(key=lambda item: item.path.parent.name == "device")
    if not config.getoption("--runslow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: use --runslow"))


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch, tmp_path):
    """One thread, one seed, and a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for subprocesses
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def bfloat16(monkeypatch):
    """bfloat16 where it is asked for, emulated if need be."""
    monkeypatch.setattr("mrda_utils.numerics.computes_bfloat16", lambda device: True)
    _announced.cache_clear()
    yield
    _announced.cache_clear()


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Path:
    """Experiments folder in which all four stages ran for 6 iterations, one after the other."""
    from tests.model.conftest import STAGES, stage_options, train

    torch.set_num_threads(1)
    experiments = tmp_path_factory.mktemp("chain")
    for stage in STAGES:
        train(stage_options(stage, experiments))
    return experiments


@pytest.fixture
def browser():
    """Headless Chromium; its log is kept."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.implicitly_wait(5)
    yield browser
    browser.quit()
