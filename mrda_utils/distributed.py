"""One process or several: what torchrun or Slurm say, and the device of this process."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from mrda_utils.errors import UserError

TIMEOUT = timedelta(hours=2)  # rank 0 validates while the others wait in the next collective


class Process(NamedTuple):
    """This process among those that train together."""

    rank: int
    world_size: int
    device: torch.device


def _slurm_environment() -> None:
    """Give a Slurm task the variables that torchrun would set; MASTER_ADDR must come from the job script."""
    for ours, slurm in (("RANK", "SLURM_PROCID"), ("WORLD_SIZE", "SLURM_NTASKS"), ("LOCAL_RANK", "SLURM_LOCALID")):
        if slurm not in os.environ:
            raise UserError(f"--launcher slurm: {slurm} is not set; start with srun")
        os.environ.setdefault(ours, os.environ[slurm])
    if "MASTER_ADDR" not in os.environ:
        raise UserError("--launcher slurm: MASTER_ADDR is not set; export the first node's name in the job script")
    os.environ.setdefault("MASTER_PORT", "29500")


def start(launcher: str, device: str) -> Process:
    """Join the process group if there is one (torchrun is seen by its variables), choose the device.

    Args:
        launcher: `slurm`, or anything else for torchrun or a single process.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UserError: CUDA asked for and not there, or a launcher without its variables.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: 'cuda', but torch sees no CUDA device; use device: cpu")
    use_cuda = device != "cpu" and torch.cuda.is_available()
    if launcher == "slurm":
        _slurm_environment()
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if launcher == "pytorch" and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "--launcher pytorch: WORLD_SIZE is not set; start with torchrun --nproc_per_node=N train.py ..."
        )
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda:
        torch.cuda.set_device(local_rank)
    if world_size > 1:
        dist.init_process_group("nccl" if use_cuda else "gloo", timeout=TIMEOUT)
    rank = dist.get_rank() if world_size > 1 else 0
    return Process(rank, world_size, torch.device("cuda", local_rank) if use_cuda else torch.device("cpu"))


def broadcast_object(value: object, world_size: int) -> object:
    """Return rank 0's value on every rank."""
    if world_size == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder)
    return holder[0]


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()
