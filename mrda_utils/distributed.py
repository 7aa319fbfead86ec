"""How processes that train or test together agree.

Messages between processes here use gloo, on CUDA too: no GPU is waited for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist

from mrda_utils.errors import UserError

T = TypeVar("T")


def environment_number(variable: str, default: int, least: int = 0) -> int:
    """A whole number in the environment, as torchrun, Slurm or `num_processes` put it there.

    Raises:
        UserError: something else is there.
    """
    text = os.environ.get(variable, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
        raise UserError(f"{variable}: {text!r} is no number from {least} on; torchrun or Slurm sets it, or unset it")
    return int(text)


def on_rank_0(work: Callable[[], T]) -> T:
    """Run `work` on rank 0 alone and return its result on every rank; others wait, and end if it fails.

    Raises:
        UserError: on rank 0, what `work` raised; the other ranks leave with code 2 and say nothing.
    """
    if not dist.is_initialized():
        return work()
    result, error = [None], None
    if dist.get_rank() == 0:
        try:
            result = [work()]
        except UserError as mistake:
            result, error = [], mistake
    holder = [result]
    dist.broadcast_object_list(holder)
    if error is not None:
        raise error
    if not holder[0]:
        raise SystemExit(2)
    return holder[0][0]


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank; every rank must ask."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor([int(flag)])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def barrier() -> None:
    """Wait until every rank is here."""
    gather(None)


def gather(value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
