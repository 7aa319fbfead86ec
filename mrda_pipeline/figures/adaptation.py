"""PSNR over the number of steps of adaptation (paper Fig. 9)."""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrda_arch import MLN
from mrda_data import BenchmarkDataset
from mrda_eval.evaluation import Restorer, evaluate, means
from mrda_eval.report import write_csv
from mrda_metric import metrics_of
from mrda_model.frozen import build_frozen
from mrda_model.restorers import mln_oracle, network_restorer, teacher_oracle
from mrda_pipeline.figures.setting import KERNEL_SIZE, Setting, pyplot, save
from mrda_utils.errors import OptionError, UserError


class Curve(NamedTuple):
    """Mean PSNR of a method after a number of steps of adaptation."""

    method: str
    steps: int
    psnr: float


def mlns(setting: Setting, named: list[str]) -> dict[str, MLN]:
    """The option file's MLN and those of `NAME=WEIGHTS`, which have its size.

    Raises:
        OptionError: the option file has no MLN, or an entry is not of this form.
    """
    if setting.networks.mln is None:
        raise OptionError("-opt: network_mln is missing, which adapts")
    found = {"MLN": setting.networks.mln}
    for entry in named:
        name, equals, path = entry.partition("=")
        if not equals or not name or name in found:
            raise OptionError(f"--mln {entry}: expected NAME=WEIGHTS, each name once")
        found[name] = build_frozen(setting.opt["network_mln"], str(setting.root / path), None, setting.device)
    return found


def draw_adaptation(setting: Setting, args: argparse.Namespace) -> None:
    """PSNR on Gaussian8 over the steps of adaptation: MLNs, teacher and, constant, student; adaptation.csv."""
    networks, scale = setting.networks, setting.opt["scale"]
    if min(args.steps) < 0 or len(set(args.steps)) < len(args.steps):
        raise OptionError(f"--steps {' '.join(map(str, args.steps))}: numbers from 0, each once")
    own = mlns(setting, args.mln)
    inner_lrs, restorers = networks.adaptation.inner_lrs, {}
    for steps in args.steps:
        rates = [inner_lrs[min(n, len(inner_lrs) - 1)] for n in range(steps)]
        adaptation = networks.adaptation._replace(inner_lrs=rates)
        methods: dict[str, Restorer] = {name: mln_oracle(mln, adaptation) for name, mln in own.items()}
        methods["teacher"] = teacher_oracle(networks.teacher, networks.mln, adaptation)
        restorers |= {(name, steps): restore for name, restore in methods.items()}
    if networks.student is not None:
        restorers["student", 0] = network_restorer(networks.student)
    dataset = BenchmarkDataset(
        {
            "name": "adaptation",
            "dataroot_gt": setting.images,
            "protocol": "gaussian8",
            "scale": scale,
            "kernel_size": KERNEL_SIZE,
            "max_side": args.max_side // scale * scale,
        }
    )
    psnr = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": scale, "test_y_channel": True}})
    found = [row for item in evaluate(restorers, dataset, psnr, setting.device) for row in item.rows]
    curves = [Curve(*method, value) for method, value in means(found, "method").items()]
    plot, axis = pyplot().subplots(figsize=(6, 4.5))
    for method in dict.fromkeys(curve.method for curve in curves):
        line = sorted((curve.steps, curve.psnr) for curve in curves if curve.method == method)
        if len(line) > 1:
            axis.plot(*zip(*line, strict=True), marker="o", label=method)
        else:
            axis.axhline(line[0][1], linestyle="--", color="gray", label=method)
    axis.set(xlabel="steps of adaptation", ylabel="PSNR on Y, dB", title="Gaussian8")
    axis.legend()
    save(plot, setting.output / "adaptation.png")
    write_csv(curves, Curve._fields, setting.output / "adaptation.csv")


def trained_curves(path: Path) -> dict[str, dict[str, dict[int, list[float]]]]:
    """PSNR of the rows NAME-nSTEPS in a values.csv of scripts/ablation.py: test set, NAME, steps, one value per seed.

    Raises:
        UserError: no such file, not such a table, or one without such rows.
    """
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if match := re.fullmatch(r"(.+)-n(\d+)", row["row"]):
                    lines = found.setdefault(row["dataset"], {})
                    lines.setdefault(match[1], {}).setdefault(int(match[2]), []).append(float(row["psnr"]))
    except OSError as error:
        raise UserError(f"--values {path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"--values {path}: not a values.csv of scripts/ablation.py ({error})") from error
    if not found:
        raise UserError(f"--values {path}: none of the rows T2-n1 ... S3-n7; scripts/ablation.py trains them")
    return found


def draw_steps(root: Path, args: argparse.Namespace) -> None:
    """PSNR over the steps of adaptation that networks were trained with: a panel per test set, a line per network."""
    path = root / args.values
    found = trained_curves(path)
    plot, axes = pyplot().subplots(1, len(found), figsize=(5 * len(found), 4), squeeze=False, layout="constrained")
    for axis, (dataset, lines) in zip(axes[0], found.items(), strict=True):
        for name, line in lines.items():
            steps = sorted(line)
            spread = [float(np.std(line[n], ddof=1)) if len(line[n]) > 1 else 0.0 for n in steps]
            axis.errorbar(steps, [np.mean(line[n]) for n in steps], spread, marker="o", capsize=3, label=name)
        axis.set(xlabel="steps of adaptation", ylabel="PSNR on Y, dB", title=dataset)
        axis.legend()
    save(plot, root / (args.output or path.parent) / "adaptation_trained.png")
