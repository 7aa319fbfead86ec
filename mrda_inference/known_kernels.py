"""What a network found in a photograph, by its implicit degradation representation (IDR): near kernels, and words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrda_data.degradation.classic import classic_degrade
from mrda_data.degradation.kernels import task_kernel
from mrda_data.images import to_tensor
from mrda_data.protocols import protocol_cases
from mrda_data.sources import BUNDLED, BundledSource
from mrda_inference.tiling import Encode
from mrda_utils.seeding import torch_generator

SIDE = 72  # of the reference crops, LR pixels; four times as much fits into every bundled photograph
KERNEL_SIZE = 21
KINDS = {"blur": "blur", "noise": "noise", "jpeg": "JPEG compression"}
"""Of degradation, and what `words` calls them."""
NO_BLUR, NO_NOISE, NO_JPEG = 0.5, 1.5, 95  # pixels, of 255, quality: from where on words speak of it


class KnownKernel(NamedTuple):
    """An isotropic Gaussian kernel and what the network makes of photographs blurred by it."""

    name: str
    degradation: dict[str, float]
    """How strong each kind of it is, as `words` takes them."""
    kernel: np.ndarray
    """(21, 21), its sum is 1."""
    idrs: Tensor
    """(R, 4 w), one a reference photograph."""


class Neighbour(NamedTuple):
    """A known kernel beside a photograph."""

    known: KnownKernel
    angle: float
    """Between the photograph's IDR and the kernel's, mean over its references, degrees."""


def reference_crops(scale: int) -> Tensor:
    """Centres of the bundled photographs, (R, 3, SIDE scale, SIDE scale) in [0, 1]."""
    side, crops = SIDE * scale, []
    for split in BUNDLED:
        source = BundledSource(split)
        for image in map(source.read, range(len(source.names))):
            top, left = ((length - side) // 2 for length in image.shape[:2])
            crops.append(to_tensor(image[top : top + side, left : left + side]))
    return torch.stack(crops)


def known_kernels(encode: Encode, scale: int) -> list[KnownKernel]:
    """No blur and the Gaussian8 kernels, each with the IDRs of the bundled photographs degraded by it.

    Args:
        encode: of the network whose IDRs will be compared.
        scale: its factor.
    """
    crops = reference_crops(scale)
    found = []
    for case in protocol_cases("bicubic", scale) + protocol_cases("gaussian8", scale):
        lq = classic_degrade(crops, case.task, scale, KERNEL_SIZE, torch_generator(0, "known kernels"))
        width = case.task["sigma_x"]
        name, kernel = f"width {width:.2f}" if width else "no blur", task_kernel(case.task, KERNEL_SIZE).numpy()
        found.append(KnownKernel(name, {"blur": width}, kernel, encode(lq).float().cpu()))
    return found


def nearest(known: list[KnownKernel], idr: Tensor, count: int = 3) -> list[Neighbour]:
    """The `count` kernels whose IDRs have the smallest mean angle to one IDR (1, 4 w), the nearest first.

    The mean, since the nearest single reference often is another kernel's on a photograph that looks alike.
    """
    neighbours = [Neighbour(kernel, float(_angles(kernel.idrs, idr.cpu()).mean())) for kernel in known]
    return sorted(neighbours, key=lambda neighbour: neighbour.angle)[:count]


def estimate(known: list[KnownKernel], idr: Tensor) -> dict[str, float]:
    """How a photograph is degraded, read off its IDR (1, 4 w): mean over what is known, nearer ones counting more.

    By the fourth power of the angle: of the powers and numbers of neighbours tried with the shipped student, the scene
    of each reference left out in turn, this came nearest to the true widths (0.14 pixels off on average).
    """
    angles = torch.stack([_angles(kernel.idrs, idr.cpu()).mean() for kernel in known]).clamp(min=1e-3)
    shares = (angles**-4 / (angles**-4).sum()).tolist()
    return {
        kind: sum(share * kernel.degradation[kind] for share, kernel in zip(shares, known, strict=True))
        for kind in known[0].degradation
    }


def words(degradation: Mapping[str, float]) -> str:
    """What was found, for a reader who knows nothing of networks.

    Args:
        degradation: by kind; kinds that are missing were not looked for. `blur`: width (standard deviation) of a
            Gaussian kernel, pixels of the enlarged picture. `noise`: standard deviation, of 255.
            `jpeg`: quality, 1 to 100.
    """
    parts = []
    if "blur" in degradation:
        blur = degradation["blur"]
        parts.append("sharp" if blur < NO_BLUR else f"blurred, about {blur:.1f} pixels of the enlarged picture")
    if "noise" in degradation:
        noise = degradation["noise"]
        parts.append("no noise" if noise < NO_NOISE else f"noise, about {noise:.0f} of 255")
    if "jpeg" in degradation:
        quality = degradation["jpeg"]
        parts.append("no JPEG artefacts" if quality > NO_JPEG else f"JPEG artefacts, about quality {quality:.0f}")
    missing = [name for kind, name in KINDS.items() if kind not in degradation]
    if missing:
        parts.append(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not looked for")
    return "; ".join(parts)


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between the rows of (R, D) and (1, D), degrees; by the chord, exact for small ones too."""
    a, b = (torch.nn.functional.normalize(x.double()) for x in (a, b))
    return torch.rad2deg(2 * torch.asin(((a - b).norm(dim=1) / 2).clamp(max=1)))
