"""Train variants of the networks and print the paper's ablation tables with our results.

    python scripts/ablation.py T1 T2 S3 --seeds 0 1 2
    python scripts/ablation.py T2 S3 --options options -o results/ablation_paper

The same command resumes where an earlier one ended; docs/ablation.md lists the rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import argparse
import csv
import json
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from tabulate import tabulate

import mrda_loss  # noqa: F401  (these imports register what option files name)
from mrda_data import BenchmarkDataset
from mrda_data.protocols import PROTOCOLS
from mrda_eval.evaluation import Restorer, Row, evaluate, means
from mrda_eval.report import write_csv
from mrda_metric import metrics_of
from mrda_model.adaptation import Adaptation
from mrda_model.frozen import build_frozen
from mrda_model.restorers import kernel_oracle, mln_oracle, network_restorer, teacher_oracle
from mrda_options import validate
from mrda_options.datasets import DataRoot
from mrda_options.process import start
from mrda_pipeline.chain import Runs, needed, read_runs, run_options, train, weights_path
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, run
from mrda_utils.fields import Name, Section, did_you_mean
from mrda_utils.files import write_text
from mrda_utils.numerics import set_numerics

ROOT = Path(__file__).resolve().parents[1]
SCALE = 4
PSNR = metrics_of({"psnr": {"type": "calculate_psnr", "crop_border": SCALE, "test_y_channel": True}})


class TableRow(Section):
    """One row of a table; `paper` has a value for each column."""

    run: Name
    about: str
    paper: list[float] = Field([])


class Table(Section):
    """One table: columns are the kernels of the protocol, or their mean."""

    protocol: str
    paper_set: str
    rows: dict[Name, TableRow]


class Plan(Runs):
    """Options/ablation/ablation.yml, which says what the keys mean."""

    test_sets: dict[Name, DataRoot]
    tables: dict[str, Table]

    @model_validator(mode="after")
    def _known_runs(self) -> Plan:
        for title, table in self.tables.items():
            for label, row in table.rows.items():
                if row.run not in self.runs:
                    advice = did_you_mean(row.run, list(self.runs))
                    raise ValueError(f"tables.{title}.{label}: {row.run!r} is no run, {advice}")
        return self


class Value(NamedTuple):
    """PSNR of one run in one column of a table, mean over images (and kernels)."""

    table: str
    row: str
    run: str
    seed: int
    dataset: str
    column: str
    psnr: float


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("rows", nargs="*", help="rows of the tables, T1 T2 ...; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="each is a chain of trainings of its own")
    parser.add_argument(
        "--plan", type=Path, default=ROOT / "options/ablation/ablation.yml", help="list of runs, tables"
    )
    parser.add_argument("--options", type=Path, help="folder of train_<stage>_x4.yml; by default that of the plan")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder of the tables; by default results/<name of the options' folder>"
    )
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="change options of every run, as in train.py"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train what the chosen rows need, measure it, write and print the tables."""
    args = _parse(argv)
    plan = read_runs(args.plan, Plan, "--plan")
    tables = chosen(plan, args.rows)
    names = needed(plan.runs, (row.run for table in tables.values() for row in table.rows.values()))
    folder = args.options or args.plan.parent
    output = ROOT / (args.output or Path("results") / folder.resolve().name)
    options = {
        (name, seed): options_of(plan, name, folder, seed, args.force_yml) for seed in args.seeds for name in names
    }
    test_sets = {name: root for name, root in plan.test_sets.items() if is_there(root)}
    for name in plan.test_sets.keys() - test_sets.keys():
        print(f"{name}: left out; put its HR images into {plan.test_sets[name]}")  # noqa: T201
    for opt in options.values():
        train(opt, ROOT, output / "options")
    values = [
        Value(title, label, row.run, seed, dataset, column, psnr)
        for title, table in tables.items()
        for label, row in table.rows.items()
        for seed in args.seeds
        for dataset, root in test_sets.items()
        for column, psnr in columns(
            measure(options[row.run, seed], dataset, root, table.protocol, output), table
        ).items()
    ]
    report(plan.tables, [*earlier(output / "values.csv"), *values], output)


# ------------------------------------------------------------------------------------------------------------ the plan
def chosen(plan: Plan, labels: list[str]) -> dict[str, Table]:
    """Tables with the rows of these labels alone; all of them if there is none.

    Raises:
        OptionError: an unknown label.
    """
    known = list(dict.fromkeys(label for table in plan.tables.values() for label in table.rows))
    for label in labels:
        if label not in known:
            raise OptionError(f"{label!r} is no row, {did_you_mean(label, known)}")
    wanted = set(labels or known)
    tables = {
        title: table.model_copy(update={"rows": {label: row for label, row in table.rows.items() if label in wanted}})
        for title, table in plan.tables.items()
    }
    return {title: table for title, table in tables.items() if table.rows}


def options_of(plan: Plan, name: str, folder: Path, seed: int, forced: list[str]) -> dict:
    """A run's options for a seed of its own; see `run_options`."""
    return run_options(
        name,
        plan.runs[name],
        folder,
        SCALE,
        lambda run: f"{folder.resolve().name}_{run}_s{seed}",
        [*forced, f"manual_seed={seed}"],
    )


# ---------------------------------------------------------------------------------------------- training and measuring
def is_there(root: str) -> bool:
    """Whether these HR images are there."""
    return root.startswith("bundled:") or (ROOT / root).is_dir()


def restorer(options: dict, device: torch.device) -> Restorer:
    """A trained run as its stage's validation uses it; MLN and teacher adapt on the ground truth."""
    opt = validate(options, True, options["name"])
    stage = opt["model_type"]
    net = build_frozen(opt["network_g"], str(weights_path(options, ROOT)), stage, device)
    if stage == "MLNMetaModel":
        return mln_oracle(net, Adaptation(**opt["adaptation"]))
    if stage == "MRDATeacherModel":
        mln_path = ROOT / opt["path"]["pretrain_network_mln"]
        mln = build_frozen(opt["network_mln"], str(mln_path), "MLNMetaModel", device)
        return teacher_oracle(net, mln, Adaptation(**opt["adaptation"]))
    if stage == "MRDAKernelModel":
        return kernel_oracle(net, opt["degradation"]["kernel_size"])
    return network_restorer(net)


def measure(options: dict, dataset: str, root: str, protocol: str, output: Path) -> list[Row]:
    """PSNR of a run on every image and kernel; kept in a file, and measured again when the weights are newer."""
    path = output / "rows" / f"{options['name']}_{dataset}_{protocol}.csv"
    if not path.is_file() or path.stat().st_mtime < weights_path(options, ROOT).stat().st_mtime:
        root = root if root.startswith("bundled:") else str(ROOT / root)
        opt = {"name": dataset, "dataroot_gt": root, "protocol": protocol, "scale": SCALE, "kernel_size": 21}
        test_set = BenchmarkDataset(opt)
        set_numerics()
        device = start("none", options.get("device", "auto"), 1800).device
        found = evaluate({options["name"]: restorer(options, device)}, test_set, PSNR, device)
        write_csv([row for item in found for row in item.rows], Row._fields, path)
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{**row, "value": float(row["value"])}) for row in csv.DictReader(file)]


def columns(rows: list[Row], table: Table) -> dict[str, float]:
    """A run's value in each column of a table: the mean over images of each kernel, or over all."""
    if PROTOCOLS[table.protocol].table == "kernels":
        return means(rows, "kernel")
    return {"PSNR": means(rows, "metric")["psnr"]}


# ---------------------------------------------------------------------------------------------------------- the tables
def earlier(path: Path) -> list[Value]:
    """What earlier calls measured, from the values.csv that they left."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Value(**{**row, "seed": int(row["seed"]), "psnr": float(row["psnr"])}) for row in csv.DictReader(file)]


def summaries(values: list[Value]) -> list[dict]:
    """Mean, standard deviation (of one more run, ddof 1; None for a single seed) and number of seeds of each cell."""
    cells = defaultdict(list)
    for value in values:
        cells[value.table, value.row, value.dataset, value.column].append(value.psnr)
    return [
        {
            **dict(zip(("table", "row", "dataset", "column"), cell, strict=True)),
            "mean": float(np.mean(psnr)),
            "std": float(np.std(psnr, ddof=1)) if len(psnr) > 1 else None,
            "seeds": len(psnr),
        }
        for cell, psnr in cells.items()
    ]


def markdown(title: str, table: Table, cells: list[dict]) -> str:
    """A table as Markdown: ours for each test set, then the paper's."""
    own = [cell for cell in cells if cell["table"] == title]
    names = list(dict.fromkeys(cell["column"] for cell in own))
    counts = sorted({cell["seeds"] for cell in own})
    places = list(dict.fromkeys((cell["dataset"], cell["column"]) for cell in own))
    lines = []
    for label, row in table.rows.items():
        found = {
            (cell["dataset"], cell["column"]): f"{cell['mean']:.2f}" + (f" ± {cell['std']:.2f}" if cell["std"] else "")
            for cell in own
            if cell["row"] == label
        }
        if not found:
            continue
        ours = [found.get(place, "-") for place in places]
        paper = [f"{value:.2f}" for value in row.paper] or ["-"] * len(names)
        lines.append([label, row.about, *ours, *paper])
    heads = [*places, *((f"{table.paper_set} (paper)", name) for name in names)]
    headers = ["", "", *(where if name == "PSNR" else f"{where}, {name}" for where, name in heads)]
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    note = f"{title}, x{SCALE}, {table.protocol}, PSNR on Y in dB; ours: mean ± standard deviation over {seeds} seed(s)"
    return f"{note}\n\n{tabulate(lines, headers, tablefmt='github', disable_numparse=True)}"


def report(tables: dict[str, Table], values: list[Value], output: Path) -> None:
    """Write values.csv (a line a run and column), summary.json (an entry a cell) and tables.md; print tables.md.

    Of two values of one run and column the later one counts.
    """
    values = list({value[:-1]: value for value in values}.values())
    cells = summaries(values)
    measured = {cell["table"] for cell in cells}
    text = "\n\n".join(markdown(title, table, cells) for title, table in tables.items() if title in measured)
    write_csv(values, Value._fields, output / "values.csv")
    write_text(json.dumps(cells, indent=2) + "\n", output / "summary.json")
    write_text(text + "\n", output / "tables.md")
    print(f"\n{text}\n\n{output / 'tables.md'}")  # noqa: T201


if __name__ == "__main__":
    run(main)
