"""train.py and test.py as processes that start at once: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
import yaml

from mrda_utils import checkpoint
from tests.engine.conftest import events, run_folder
from tests.model.conftest import ROOT

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    [
        "mrda_data",
        "mrda_loss",
        "mrda_pipeline.benchmark_pipeline",
        "mrda_pipeline.train_pipeline",
        "torch.utils.tensorboard",
    ]
)


def _main(argv: list[str], output: Path, is_test: bool, prepare: Callable[[], None] | None, ready: Event) -> None:
    import mrda_arch  # noqa: F401
    import mrda_data  # noqa: F401
    import mrda_loss  # noqa: F401
    from mrda_pipeline.benchmark_pipeline import test_pipeline
    from mrda_pipeline.train_pipeline import train_pipeline
    from mrda_utils.errors import run

    multiprocessing.set_start_method("fork", force=True)  # for the loader's workers, as in train.py
    torch.set_num_threads(1)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if prepare:
        prepare()
    ready.set()
    run(lambda: (test_pipeline if is_test else train_pipeline)(ROOT, argv))


def output_file(opt: dict) -> Path:
    """What the processes of these options said, one after the other."""
    root = Path(opt["path"].get("experiments_root") or opt["path"]["results_root"])
    return root.with_name(f"{root.name}.out")  # not inside: that may be a disk that gets full


def start(opt: dict, *flags: str, prepare: Callable[[], None] | None = None) -> BaseProcess:
    """Begin train.py, or test.py, on these options; `prepare` runs in the new process before it."""
    output = output_file(opt)
    option_file = output.with_suffix(".yml")
    output.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(opt)
    if not option_file.exists() or option_file.read_text() != text:  # the other process of a group may be reading it
        option_file.write_text(text)
    is_test = "results_root" in opt["path"]
    argv, ready = ["-opt", str(option_file), *flags], _forkserver.Event()
    process = _forkserver.Process(target=_main, args=(argv, output, is_test, prepare, ready))
    process.start()
    assert ready.wait(240)
    return process


def end(process: BaseProcess) -> int:
    """Wait; return the exit code, -9 after kill -9."""
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def finish(opt: dict, *flags: str) -> Path:
    """Run train.py to its end, which must be a good one; return the run's folder."""
    assert end(start(opt, *flags)) == 0, output_file(opt).read_text()[-3000:]
    return run_folder(opt)


def start_two(opt: dict, prepare: Sequence[Callable[[], None] | None] = (None, None)) -> list[BaseProcess]:
    """Begin train.py as two processes of one group, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    return [
        start(opt, prepare=partial(_as_rank, {**address, "RANK": str(rank), "LOCAL_RANK": str(rank)}, prepare[rank]))
        for rank in range(2)
    ]


def _as_rank(environment: dict[str, str], prepare: Callable[[], None] | None) -> None:
    os.environ.update(environment)
    if prepare:
        prepare()


def wait_for_a_save(process: BaseProcess, opt: dict) -> None:
    """Return when the run has its first checkpoint, whoever wrote it."""
    deadline = time.monotonic() + 120
    while not any(event["event"] == "save" for event in events(run_folder(opt))):
        assert process.is_alive(), output_file(opt).read_text()[-3000:]
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.005)


def wait_at_random(process: BaseProcess, opt: dict, seconds: float, draw: random.Random) -> None:
    """Return at a time drawn uniformly from the first `seconds` after the run's first save."""
    wait_for_a_save(process, opt)
    time.sleep(draw.uniform(0, seconds))


def same_content(a: object, b: object) -> bool:
    """Whether two contents of checkpoints are the same, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_content(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_content, a, b))
    return a == b


def assert_nothing_lost(run: Path, whole: Path) -> None:
    """Require that a run ended with the checkpoints of the uninterrupted one, and left nothing half-written."""
    files = [path.relative_to(whole) for kind in ("*.pth", "*.state") for path in sorted(whole.rglob(kind))]
    assert any("latest" in file.name for file in files)
    for file in files:
        contents = [checkpoint.load(folder / file) for folder in (run, whole)]
        if "optimizers" in contents[0]:  # their settings come from the option file, the moments from the state
            contents = [{**c, "optimizers": [o["state"] for o in c["optimizers"]]} for c in contents]
        assert same_content(*contents), file
    assert not list(run.rglob("*.tmp"))
