"""What all figures share: networks, photographs, and how a picture is written."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from mrda_arch import MLN, MRDANet
from mrda_model.adaptation import Adaptation
from mrda_model.frozen import build_frozen
from mrda_options.command_line import parse
from mrda_utils.errors import OptionError, UserError
from mrda_utils.files import write_bytes

KERNEL_SIZE = 21


class Networks(NamedTuple):
    """What a test's option file names, with its weights; None where it does not."""

    student: MRDANet | None
    teacher: MRDANet | None
    mln: MLN | None
    adaptation: Adaptation | None
    baseline: MRDANet | None


class Setting(NamedTuple):
    """What all figures share."""

    networks: Networks
    opt: dict
    device: torch.device
    images: str
    output: Path
    root: Path
    """Folder of train.py, at which relative paths start."""


def pyplot() -> ModuleType:
    """Matplotlib without a display.

    Raises:
        UserError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError('matplotlib is not installed; pip install ".[plots]"') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def read_setting(root: Path, args: argparse.Namespace) -> Setting:
    """Networks and device of the option file.

    Args:
        root: folder of train.py.
        args: `opt`, `images`, `output` and perhaps `baseline` of the command line.

    Raises:
        UserError: options, weights or images that are not there or not right.
    """
    command = parse(root, ["-opt", args.opt], is_train=False)
    opt, device = command.opt, command.process.device

    def load(section: str, key: str, stage: str) -> torch.nn.Module | None:
        return build_frozen(opt[section], opt["path"][key], stage, device) if section in opt else None

    student = load("network_g", "pretrain_network_g", "MRDAStudentModel")
    teacher = load("network_t", "pretrain_network_t", "MRDATeacherModel")
    mln = load("network_mln", "pretrain_network_mln", "MLNMetaModel")
    baseline = None
    if getattr(args, "baseline", None):
        if "network_g" not in opt:
            raise OptionError(f"--baseline: {args.opt} has no network_g, whose options it shares")
        baseline = build_frozen(opt["network_g"], str(root / args.baseline), "MRDABaselineModel", device)
    adaptation = Adaptation(**opt["adaptation"]) if "adaptation" in opt else None
    images = args.images if args.images.startswith("bundled:") else str(root / args.images)
    output = root / (args.output or Path("results") / f"{opt['name']}_figures")
    return Setting(Networks(student, teacher, mln, adaptation, baseline), opt, device, images, output, root)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and PDF and say so.

    Raises:
        UserError: the file system refused.
    """
    for kind in ("pdf", "png"):
        data = io.BytesIO()
        figure.savefig(data, format=kind, dpi=120, bbox_inches="tight")
        write_bytes(data.getvalue(), path.with_suffix(f".{kind}"))
    pyplot().close(figure)
    print(f"{path}, and as .pdf")  # noqa: T201
