"""Known degradations: what a network's implicit representation (IDR) makes of the bundled photographs under them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrda_data.degradation import Task
from mrda_data.degradation.kernels import gaussian_kernel
from mrda_data.degradation.photo import KERNEL_SIZE, photo_degrade
from mrda_data.images import centre, to_tensor
from mrda_data.protocols import protocol_cases
from mrda_data.sources import BUNDLED, BundledSource, ImageSource
from mrda_inference.tiling import Encode
from mrda_utils.seeding import torch_generator

SIDE = 72  # of the reference crops, LR pixels; four times as much fits into every bundled photograph
KEYS = {"blur": "sigma", "noise": "noise_sigma_255", "jpeg": "jpeg_quality"}
"""Kinds of degradation, and where tasks of `photo_degrade` hold how strong they are."""
NOISE, JPEG = (10.0, 15.0), (60.0, 30.0)


class Known(NamedTuple):
    """A degradation and what the network makes of photographs under it."""

    task: Task
    """Of `photo_degrade`."""
    idrs: Tensor
    """(R, 4 w), one a reference photograph."""

    @property
    def name(self) -> str:
        """Of its blur."""
        return f"width {self.task['sigma']:.2f}" if "sigma" in self.task else "no blur"

    @property
    def kernel(self) -> np.ndarray:
        """Of its blur, (21, 21), its sum is 1; a single 1 without."""
        width = self.task.get("sigma", 1e-3)
        return gaussian_kernel(width, width, kernel_size=KERNEL_SIZE).numpy()


class Neighbour(NamedTuple):
    """A known degradation beside a photograph."""

    known: Known
    angle: float
    """Between the photograph's IDR and the known one's, mean over its references, degrees."""


def reference_crops(scale: int) -> Tensor:
    """Centres of the bundled photographs, (R, 3, SIDE scale, SIDE scale) in [0, 1]."""
    return torch.stack([part for split in BUNDLED for part in central_crops(BundledSource(split), scale)])


def central_crops(source: ImageSource, scale: int) -> list[Tensor]:
    """Centres (3, SIDE scale, SIDE scale) in [0, 1] of a source's images; smaller images are left out."""
    side = SIDE * scale
    parts = (centre(to_tensor(source.read(index)), side) for index in range(len(source.names)))
    return [part for part in parts if part.shape[1:] == (side, side)]


def degraded(crops: Tensor, task: Task, scale: int) -> Tensor:
    """Crops (R, 3, H, W) under a task of `photo_degrade`, noise of each channel its own; always the same."""
    return photo_degrade(crops, {**task, "gray_noise": False}, scale, torch_generator(0, "known degradations"))


def known_degradations(encode: Encode, scale: int, kinds: Sequence[str]) -> list[Known]:
    """Degradations that are strong enough to be told, each with the IDRs of the bundled photographs under it.

    Args:
        encode: of the network whose IDRs will be compared.
        scale: its factor.
        kinds: of KEYS. Blur alone: none and the eight Gaussian8 widths; otherwise every combination of none and some
            levels of each kind.
    """
    widths = [case.task["sigma_x"] for case in protocol_cases("gaussian8", scale)]
    levels = {"blur": widths if len(kinds) == 1 else widths[::3], "noise": NOISE, "jpeg": JPEG}
    choices = [[{}, *({KEYS[kind]: level} for level in levels[kind])] for kind in kinds]
    tasks = [{key: level for part in parts for key, level in part.items()} for parts in product(*choices)]
    crops = reference_crops(scale)
    return [Known(task, encode(degraded(crops, task, scale)).float().cpu()) for task in tasks]


def nearest(known: list[Known], idr: Tensor, count: int = 3) -> list[Neighbour]:
    """The `count` degradations whose IDRs have the smallest mean angle to one IDR (1, 4 w), the nearest first.

    The mean, since the nearest single reference often is another degradation's on a photograph that looks alike.
    """
    neighbours = [Neighbour(one, float(_angles(one.idrs, idr.cpu()).mean())) for one in known]
    return sorted(neighbours, key=lambda neighbour: neighbour.angle)[:count]


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between the rows of (R, D) and (1, D), degrees; by the chord, exact for small ones too."""
    a, b = (torch.nn.functional.normalize(x.double()) for x in (a, b))
    return torch.rad2deg(2 * torch.asin(((a - b).norm(dim=1) / 2).clamp(max=1)))
