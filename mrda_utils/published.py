"""Published results that a report may stand beside its own: same protocol, x4 (paper Table II)."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One method's PSNR in dB and, where printed, SSIM, both on Y."""

    method: str
    psnr: float
    ssim: float | None


SETS = ("Set5", "Set14", "BSD100", "Urban100", "Manga109")

_GAUSSIAN8_X4 = {
    "IKC": ((31.67, 0.8829), (28.31, 0.7643), (27.37, 0.7192), (25.33, 0.7504), (28.91, 0.8782)),
    "DAN": ((31.89, 0.8864), (28.42, 0.7687), (27.51, 0.7248), (25.86, 0.7721), (30.50, 0.9037)),
    "DASR": ((31.46, 0.8789), (28.11, 0.7603), (27.44, 0.7214), (25.36, 0.7506), (29.39, 0.8861)),
    "MRDA_S": ((31.98, 0.8872), (28.42, 0.7671), (27.55, 0.7254), (25.90, 0.7734), (30.51, 0.9088)),
}


def published_rows(dataset: str, protocol: str, scale: int) -> list[Published]:
    """Published rows of this set and protocol, empty where there are none.

    The Bicubic row of Table II is left out: it does not follow from the protocol that the paper describes.
    """
    if (protocol, scale) != ("gaussian8", 4) or dataset not in SETS:
        return []
    column = SETS.index(dataset)
    return [Published(method, *values[column]) for method, values in _GAUSSIAN8_X4.items()]
