"""How often what the page says of a photograph is right: blurred, noisy, JPEG.

    python benchmarks/found.py
    python benchmarks/found.py -i datasets/Set14/HR

By default the bundled photographs, the scene of each left out of what is learnt in turn; with -i a folder's. They
count as clean and are degraded: by one kind, also weaker than what is learnt, or by several. *Right* is a kind said
to be there that is there, however weak; *wrong* is one said not to be strong that is. Then, how well the labels of the
five nearest representations tell the kind of those with one kind.
"""

from __future__ import annotations

import mrda_utils.openmp  # noqa: F401  (before torch)

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from tabulate import tabulate

from mrda_data.degradation import Task
from mrda_data.sources import BUNDLED, open_source
from mrda_inference.found import Finder, Found
from mrda_inference.known_degradations import (
    KEYS,
    Known,
    central_crops,
    degraded,
    known_degradations,
    reference_crops,
)
from mrda_inference.upscaler import MODELS, open_upscaler
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import run

LEVELS = {"blur": (0.8, 1.6, 2.4, 3.2), "noise": (5.0, 10.0, 15.0), "jpeg": (90.0, 75.0, 60.0, 40.0, 30.0)}
NEIGHBOURS = 5
SAME_SCENE = "motorcycle"  # left and right picture of one


def tasks() -> list[Task]:
    """None, each level of one kind alone, and combinations of strong levels."""
    alone = [{KEYS[kind]: level} for kind, levels in LEVELS.items() for level in levels]
    strong = [({}, {"sigma": 2.0}, {"sigma": 2.8}), ({}, {"noise_sigma_255": 12.0}), ({}, {"jpeg_quality": 50.0})]
    together = [{**a, **b, **c} for a, b, c in product(*strong)]
    return [{}, *alone, *(task for task in together if len(task) > 1)]


def is_strong(task: Task, kind: str) -> bool:
    """Whether a kind is as strong as what is learnt, or nearly."""
    value = task.get(KEYS[kind])
    return value is not None and {"blur": value >= 1.6, "noise": value >= 10, "jpeg": value <= 60}[kind]


def scenes() -> list[str]:
    """Of the bundled photographs, in the order of `reference_crops`."""
    names = [name for split in BUNDLED for name in open_source(f"bundled:{split}").names]
    return [SAME_SCENE if name.startswith(SAME_SCENE) else name for name in names]


def kind_alone(task: Task) -> str:
    """Name of the only kind; its weak levels count as well."""
    return next((kind for kind, key in KEYS.items() if key in task), "clean")


class Case(NamedTuple):
    """What was found in a photograph under a task, and the kind of its nearest neighbours."""

    task: Task
    found: dict[str, Found]
    neighbour: str


def cases(known: list[Known], tested: list[Known], own: list[str], learnt: list[str]) -> list[Case]:
    """What is found in photographs of `tested` (they show `own`) by `known` (they show `learnt`, but not the same)."""
    found = []
    for scene in dict.fromkeys(own):
        rest = [index for index, name in enumerate(learnt) if name != scene]
        finder = Finder([one._replace(idrs=one.idrs[rest]) for one in known])
        alone = [one for one in known if len(one.task) <= 1]
        bank = torch.cat([one.idrs[rest] for one in alone]).numpy()
        labels = np.repeat([kind_alone(one.task) for one in alone], len(rest))
        neighbours = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(bank, labels)
        for one in tested:
            for idr in (one.idrs[index : index + 1] for index, name in enumerate(own) if name == scene):
                found.append(Case(one.task, finder.find(idr), neighbours.predict(idr.numpy())[0]))
    return found


def row(kind: str, about: str, selected: list[Case]) -> list[str | int]:
    """Of one kind: said to be there and right; said not to be strong and wrong; unsure; error of the amount."""
    said = [case for case in selected if case.found[kind].is_there]
    denied = [case for case in selected if case.found[kind].is_there is False]
    right = [case for case in said if KEYS[kind] in case.task]
    errors = [abs(case.found[kind].amount - case.task[KEYS[kind]]) for case in right]
    strong = [case for case in selected if is_strong(case.task, kind)]
    recalled = sum(bool(case.found[kind].is_there) for case in strong)
    return [
        kind,
        about,
        f"{len(right)} of {len(said)}",
        f"{recalled} of {len(strong)}",
        f"{sum(is_strong(case.task, kind) for case in denied)} of {len(denied)}",
        len(selected) - len(said) - len(denied),
        f"{np.mean(errors):.2g}" if errors else "",
    ]


def main() -> None:
    """Print the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("-i", "--images", help="folder of clean photographs; by default the bundled ones")
    parser.add_argument("--model", choices=MODELS, default="photo", help="shipped network")
    args = parser.parse_args()
    upscaler = open_upscaler(MODELS[args.model].weights, "cpu")
    scale, learnt = upscaler.net.upscale, scenes()
    crops = (
        reference_crops(scale) if args.images is None else torch.stack(central_crops(open_source(args.images), scale))
    )
    own = learnt if args.images is None else ["another"] * len(crops)
    with torch.inference_mode():
        known = known_degradations(upscaler.encode, scale, tuple(KEYS))
        tested = [Known(task, upscaler.encode(degraded(crops, task, scale)).cpu()) for task in tasks()]
        found = cases(known, tested, own, learnt)
    alone = [case for case in found if len(case.task) <= 1]
    rows = [
        row(kind, about, selected)
        for kind in KEYS
        for about, selected in (("alone", alone), ("with others", [case for case in found if len(case.task) > 1]))
    ]
    heads = ["kind", "", "said, right", "strong, said", "denied, wrong", "unsure", "error of the amount"]
    print(tabulate(rows, heads, tablefmt="github"))  # noqa: T201
    clear = [case for case in alone if not case.task or is_strong(case.task, kind_alone(case.task))]
    for about, selected in (("all levels", alone), ("none or strong", clear)):
        share = np.mean([case.neighbour == kind_alone(case.task) for case in selected])
        print(f"{NEIGHBOURS} nearest tell the kind, {about}: {share:.3f} of {len(selected)}")  # noqa: T201


if __name__ == "__main__":
    run(main)
