"""The option `train.amp`."""

from __future__ import annotations

import torch


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Networks in bfloat16 where `amp` is bf16, with weights and losses in float32; in float32 where it is none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16")
