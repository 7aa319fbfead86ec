"""From the host to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the CPU on `device`, in `dtype` if one is given.

    The host does not wait until a GPU is done with what it was given before: it copies from pinned memory, and the
    conversion comes first, since a copy that converts waits all the same.
    """
    tensor = tensor if dtype is None else tensor.to(dtype)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
