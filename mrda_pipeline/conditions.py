"""What the course of a training depends on: compared between its processes, and with the state that it resumes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from mrda_data import GTDataset, PairedDataset
from mrda_eval.report import file_hash
from mrda_options.command_line import Run
from mrda_utils.distributed import gather
from mrda_utils.errors import UserError

SAMPLES = 8  # images of a data set whose pixels are compared; of the others name and size
OTHER_TRAINING = ("manual_seed", "degradation.", "degradation_per")  # what makes it another one if it is changed
_SECTIONS = ("manual_seed", "degradation", "degradation_per", "adaptation", "train", "tf32", "deterministic")
_NO_MATTER = (  # what neither draws nor numbers depend on, or what is compared in another way
    *(
        f"datasets.train.{key}"
        for key in ("name", "type", "dataroot_gt", "cache", "cache_folder", "num_worker_per_gpu")
    ),
    *(f"datasets.train.{key}" for key in ("phase", "scale", "manual_seed", "tasks_per_gpu")),
    "train.max_skipped",
)


class Change(NamedTuple):
    """One difference from the run that wrote the state."""

    what: str
    before: str
    now: str

    def __str__(self) -> str:
        """For the log, and for messages."""
        return f"{self.what} was {self.before!r:.200}, is {self.now!r:.200}"


def conditions(run: Run, train_set: Dataset) -> dict[str, str]:
    """What must not change for a run to resume bit for bit, by option or by name."""
    opt = run.opt
    sections = {
        key: opt[key] for key in (*_SECTIONS, *sorted(key for key in opt if key.startswith("network_"))) if key in opt
    }
    found = dict(_flat({**sections, "datasets": {"train": opt["datasets"]["train"]}}))
    if opt["train"]["scheduler"]["type"] != "CosineAnnealingLR":  # there each step depends on the end
        found.pop("train.total_iter", None)
    step = opt["datasets"]["train"]["tasks_per_gpu"] * opt["train"]["accumulation_steps"] * run.process.world_size
    found = {key: str(value) for key, value in found.items() if key not in _NO_MATTER}
    frozen = [f"path.pretrain_network_{name}" for name in ("mln", "t") if f"pretrain_network_{name}" in opt["path"]]
    return {
        **found,
        **{key: f"sha256 {file_digest(opt['path'][key.removeprefix('path.')])}" for key in frozen},
        "tasks of a step": str(step),
        "processes": str(run.process.world_size),
        "threads": str(torch.get_num_threads()),
        "device": run.process.device.type,
        "torch": str(torch.__version__),
        "training images": f"{len(train_set)} images, sha256 {images_digest(train_set)}",
    }


def _flat(options: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in options.items():
        yield from _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def changes(before: dict[str, str] | None, now: dict[str, str]) -> list[Change]:
    """What differs; nothing where an earlier version wrote the state, which does not say."""
    if before is None:
        return []
    keys = sorted(before.keys() | now.keys())
    return [
        Change(key, before.get(key, "missing"), now.get(key, "missing"))
        for key in keys
        if before.get(key) != now.get(key)
    ]


def refuse_other_training(changed: list[Change], state_path: Path) -> None:
    """Raise UserError if a run would resume as another training."""
    others = [change for change in changed if change.what.startswith(OTHER_TRAINING)]
    if others:
        named = next((change for change in others if change.what == "degradation.type"), others[0])
        raise UserError(
            f"{state_path}: {named}, which makes it another training; take the old value or another name, or say "
            "--resume_changed to go on all the same"
        )


def images_digest(dataset: Dataset) -> str:
    """SHA-256 of sizes, of names within their folders, and of the pixels of some images, spread over each folder."""
    several = isinstance(dataset, GTDataset | PairedDataset)
    parts = dataset.parts if several else [(dataset.source, dataset.indices)]
    digest = sha256("\n".join(map(str, sorted(dataset.sizes))).encode())
    for source, indices in parts:
        digest.update("\n".join(source.names[i] for i in indices).encode())
        for index in indices[:: max(len(indices) // SAMPLES, 1)][:SAMPLES]:
            digest.update(source.read(index).tobytes())
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content; "missing" where there is none to read."""
    try:
        return file_hash(path)
    except OSError:
        return "missing"


def check_agreement(own: dict[str, str], rank: int) -> None:
    """Require that all processes have the same; every one of them must call it.

    Args:
        own: what must be the same: what it is, as the message names it, and its content or digest.
        rank: this process.

    Raises:
        UserError: naming what differs.
    """
    everyone = gather(own)
    names = dict.fromkeys(name for part in everyone for name in part)
    if differ := [name for name in names if len({part.get(name) for part in everyone}) > 1]:
        raise UserError(f"rank {rank}: {', '.join(differ)} differ between the processes; they must be the same")
