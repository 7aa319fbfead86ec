"""The options `train.amp` and `adaptation.dtype`: bfloat16 on devices that compute in it."""

from __future__ import annotations

from functools import cache

import torch
from basicsr.utils import get_root_logger

from mrda_utils import numerics


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Networks in bfloat16 where `precision` is bf16 or bfloat16 and the device has it; weights and losses in float32.

    Emulated bfloat16 takes longer than float32, so that is what a device without it gets; the log says so once.
    """
    wanted = precision in ("bf16", "bfloat16")
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and _announced(device))


@cache
def _announced(device: torch.device) -> bool:
    found = numerics.computes_bfloat16(device)
    if not found:
        get_root_logger().warning(
            "train.amp and adaptation.dtype: float32 in the place of bfloat16, which this %s does not compute in",
            "GPU" if device.type == "cuda" else "processor",
        )
    return found
