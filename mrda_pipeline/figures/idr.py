"""Representations of crops under several degradations, in t-SNE's plane (paper Fig. 7 and 8)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.manifold import TSNE
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from mrda_data.degradation.classic import classic_degrade
from mrda_data.images import ImageError
from mrda_data.protocols import Case, protocol_cases
from mrda_data.sources import open_source
from mrda_eval.progress import progress_bar
from mrda_eval.report import write_csv
from mrda_model.adaptation import adapted_features
from mrda_pipeline.figures.setting import KERNEL_SIZE, Networks, Setting, pyplot, save
from mrda_utils.errors import OptionError
from mrda_utils.seeding import torch_generator

NEIGHBOURS, FOLDS = 5, 5


class Embedded(NamedTuple):
    """A representation in t-SNE's plane."""

    figure: str
    network: str
    degradation: str
    crop: int
    x: float
    y: float


class Accuracy(NamedTuple):
    """Accuracy of classifying the degradation of an unseen crop by its nearest neighbours."""

    figure: str
    network: str
    accuracy: float
    chance: float


def degradations(scale: int) -> dict[str, list[Case]]:
    """Cases of each figure: widths without blur to 3.6 (Fig. 7); anisotropic kernels, noise levels (Fig. 8)."""
    anisotropic = protocol_cases("aniso9_dasr", scale)
    return {
        "widths": protocol_cases("width", scale),
        "kernels": [case for case in anisotropic if case.task["noise_sigma_255"] == 0],
        "noise": [case for case in anisotropic if case.kernel == anisotropic[0].kernel],
    }


def crops(images: str, side: int, at_most: int) -> Tensor:
    """Crops (N, 3, side, side) in [0, 1] without overlap, spread evenly over the images.

    Raises:
        ImageError: no image is so large.
    """
    source = open_source(images)
    found = []
    for image in map(source.read, range(len(source.names))):
        for top in range(0, image.shape[0] - side + 1, side):
            found += [image[top : top + side, x : x + side] for x in range(0, image.shape[1] - side + 1, side)]
    if len(found) < FOLDS:
        raise ImageError(f"--images {images}: {len(found)} crops of {side}x{side}, at least {FOLDS} are needed")
    kept = np.linspace(0, len(found) - 1, min(at_most, len(found))).round().astype(int)
    return torch.from_numpy(np.stack([found[i] for i in kept])).permute(0, 3, 1, 2).float() / 255


def idr_sources(networks: Networks) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Name to (lq, gt), each (1, 3, h, w), to representation (1, 4 w); MLN adapts to the image itself."""
    sources: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    if networks.baseline is not None:
        sources["no degradation learning"] = lambda lq, gt: networks.baseline.den(lq)
    if networks.teacher is not None:
        teacher, mln, adaptation = networks.teacher, networks.mln, networks.adaptation
        sources["teacher with MLN"] = lambda lq, gt: teacher.den(adapted_features(mln, lq, gt, adaptation))
    if networks.student is not None:
        sources["student"] = lambda lq, gt: networks.student.den(lq)
    if not sources:
        raise OptionError("-opt: the option file names no network; network_g or network_t is needed")
    return sources


def neighbour_accuracy(idrs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Share of correct k-nearest-neighbour labels in cross-validation; a group is never on both sides.

    Args:
        idrs: (N, D).
        labels: (N,) degradation.
        groups: (N,) what the image shows.
    """
    return float(
        cross_val_score(KNeighborsClassifier(NEIGHBOURS), idrs, labels, groups=groups, cv=GroupKFold(FOLDS)).mean()
    )


class Representations(NamedTuple):
    """Representations by one network of all crops under all degradations of a figure."""

    idrs: np.ndarray
    """(N, D)."""
    plane: np.ndarray
    """(N, 2), t-SNE."""
    accuracy: float


def draw_idr(setting: Setting, args: argparse.Namespace) -> None:
    """A picture for widths, anisotropic kernels and noise levels; idr.csv and idr_accuracy.csv."""
    scale = setting.opt["scale"]
    if args.crop % scale or args.crop <= KERNEL_SIZE // 2:
        raise OptionError(f"--crop {args.crop}: it must be a multiple of scale {scale} and above {KERNEL_SIZE // 2}")
    sources = idr_sources(setting.networks)
    gt = crops(setting.images, args.crop, args.max_crops)
    points, accuracies = [], []
    for figure, cases in degradations(scale).items():
        labels = np.repeat([case.label for case in cases], len(gt))
        groups = np.tile(np.arange(len(gt)), len(cases))
        lqs = [
            classic_degrade(gt, case.task, scale, KERNEL_SIZE, torch_generator(0, f"figure {figure}", number))
            for number, case in enumerate(cases)
        ]
        found = {
            network: represented(idr, lqs, gt, labels, groups, f"{figure}, {network}", setting.device)
            for network, idr in sources.items()
        }
        for network, own in found.items():
            accuracies.append(Accuracy(figure, network, own.accuracy, 1 / len(cases)))
            points += [
                Embedded(figure, network, label, crop, *map(float, place))
                for label, crop, place in zip(labels.tolist(), groups.tolist(), own.plane, strict=True)
            ]
        save(idr_plot(found, labels, [case.label for case in cases]), setting.output / f"idr_{figure}.png")
    write_csv(points, Embedded._fields, setting.output / "idr.csv")
    write_csv(accuracies, Accuracy._fields, setting.output / "idr_accuracy.csv")
    for accuracy in accuracies:
        print("{:8} {:24} {:.3f} (chance {:.3f})".format(*accuracy))  # noqa: T201
    print(setting.output / "idr.csv")  # noqa: T201


def represented(
    idr: Callable[[Tensor, Tensor], Tensor],
    lqs: list[Tensor],
    gt: Tensor,
    labels: np.ndarray,
    groups: np.ndarray,
    about: str,
    device: torch.device,
) -> Representations:
    """Representations of each crop under each degradation, and the accuracy of nearest neighbours."""
    pairs = [(lq[None].to(device), x[None].to(device)) for own in lqs for lq, x in zip(own, gt, strict=True)]
    idrs = torch.cat([idr(*pair) for pair in progress_bar(about, True, pairs, leave=False)]).float().cpu().numpy()
    plane = TSNE(perplexity=min(30, (len(idrs) - 1) / 3), init="pca", random_state=0).fit_transform(idrs)
    return Representations(idrs, plane, neighbour_accuracy(idrs, labels, groups))


def idr_plot(found: dict[str, Representations], labels: np.ndarray, names: list[str]) -> Any:
    """A plane for each network, a colour for each degradation."""
    plot, axes = pyplot().subplots(1, len(found), figsize=(5 * len(found), 5), squeeze=False, layout="constrained")
    for axis, (network, own) in zip(axes[0], found.items(), strict=True):
        for name in names:
            axis.scatter(*own.plane[labels == name].T, s=12, label=name)
        axis.set(title=f"{network}\n{NEIGHBOURS}-NN accuracy {own.accuracy:.2f}", xticks=[], yticks=[])
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return plot
