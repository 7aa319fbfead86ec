"""The folder of a training: one process at a time, and nothing of an earlier run is lost."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from mrda_model import training_state
from mrda_options.command_line import Run
from mrda_pipeline.start_state import StartState
from mrda_utils.errors import UserError
from mrda_utils.files import write_text


def lock(run: Run, stack: ExitStack) -> None:
    """Lock this run's name until `stack` closes; the kernel unlocks it when the process ends, however it ends.

    Raises:
        UserError: another process trains it, or the folder cannot be written.
    """
    folder = Path(run.opt["path"]["run"])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder.with_name(f".{folder.name}.lock"))
        held.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"name: '{run.opt['name']}' is being trained in {folder} by another process; choose another name, or wait"
        ) from error
    except OSError as error:
        raise UserError(f"path.experiments_root: {folder.parent} cannot be written ({error})") from error
    stack.callback(held.release)


def prepare_folder(run: Run, start: StartState) -> None:
    """Make the run's folder; an earlier run that is not resumed is moved aside.

    Raises:
        UserError: the folder contains other things than a training, or cannot be written.
    """
    folder = Path(run.opt["path"]["run"])
    try:
        found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
        found -= {entry.name for entry in folder.glob(".*.tmp")}  # of a process that was killed
        if found and not found & {f"{run.opt['name']}.yml", "events.jsonl", "training_states"}:
            raise UserError(
                f"path.experiments_root: {folder} contains other things than a training; choose another name"
            )
        for left_over in folder.rglob(".*.tmp"):
            left_over.unlink()
        if found and (start.path is None or start.path.parent.parent.resolve() != folder.resolve()):
            _archive(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _abandon_newer_states(folder / "training_states", start.iteration)
    except OSError as error:
        raise UserError(f"path.experiments_root: {folder} cannot be written ({error})") from error
    write_text(run.option_text, folder / f"{run.opt['name']}.yml")


def _archive(folder: Path) -> None:
    """Move an earlier run of this name aside; nothing of it is lost."""
    stamp = time.strftime("%Y%m%d_%H%M%S")
    target, n = folder.with_name(f"{folder.name}_archived_{stamp}"), 1
    while target.exists():
        target, n = folder.with_name(f"{folder.name}_archived_{stamp}_{n}"), n + 1
    folder.rename(target)
    print(f"{folder} exists; moved to {target}")  # noqa: T201  (the log file does not exist yet)


def _abandon_newer_states(folder: Path, iteration: int) -> None:
    """Rename states beyond `iteration`: the run resumes from there, and they are damaged or of another course."""
    for path in training_state.states(folder):
        if int(path.stem) > iteration:
            path.replace(path.with_name(f"{path.name}.abandoned"))
