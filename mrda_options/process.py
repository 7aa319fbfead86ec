"""This process: its rank by the variables of torchrun or Slurm, and its device."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist

from mrda_utils.distributed import environment_number
from mrda_utils.errors import UserError


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
        environment_number(slurm, 0)
        os.environ.setdefault(ours, os.environ[slurm])
    if "MASTER_ADDR" not in os.environ:
        raise UserError("--launcher slurm: MASTER_ADDR is not set; export the first node's name in the job script")
    os.environ.setdefault("MASTER_PORT", "29500")


def _place() -> tuple[int, int, int]:
    """Rank, number of processes and rank on this node, from the environment.

    Raises:
        UserError: they are inconsistent.
    """
    world_size, rank, local_rank = (
        environment_number("WORLD_SIZE", 1, 1),
        environment_number("RANK", 0),
        environment_number("LOCAL_RANK", 0),
    )
    for name in ("LOCAL_WORLD_SIZE", "MASTER_PORT"):
        environment_number(name, 1, 1)
    if rank >= world_size:
        raise UserError(f"RANK: {rank}, but WORLD_SIZE is {world_size}, so ranks end at {world_size - 1}")
    if world_size > 1 and "RANK" not in os.environ:
        raise UserError(f"RANK: not set, but WORLD_SIZE is {world_size}; torchrun or Slurm sets both")
    return rank, world_size, local_rank


def _choose_gpu(device: str, launcher: str, world_size: int, local_rank: int) -> int:
    """Number of this process's GPU: the one that the option `device` names, or one for each process of the node."""
    count = torch.cuda.device_count()
    if ":" in device:
        number = int(device.partition(":")[2])
        if world_size > 1:
            raise UserError(f"device: {device!r}, but {world_size} processes take a GPU each; use device: cuda")
        if number >= count:
            raise UserError(f"device: {device!r}, but there are {count} GPUs, from cuda:0 on")
        return number
    if launcher == "slurm" and count == 1:
        return 0  # --gpus-per-task=1 shows each task its own GPU alone
    if local_rank >= count:
        raise UserError(f"process {local_rank} of this node has no GPU, there are {count}; lower --nproc_per_node")
    return local_rank


def _join(world_size: int, backend: str, timeout: int) -> None:
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except (dist.DistError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"WORLD_SIZE is {world_size}, but the processes did not come together ({reason})") from error


def start(launcher: str, device: str, timeout: int) -> Process:
    """Join the process group if there is one (torchrun is recognised by its variables), choose the device.

    Args:
        launcher: `slurm`, or anything else for torchrun or a single process.
        device: `auto`, `cpu`, `cuda`, or a GPU by its number, `cuda:1`, for one process.
        timeout: seconds after which waiting for another process ends the run.

    Raises:
        UserError: CUDA asked for and not there, more processes than GPUs, or a launcher without its variables.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device: {device!r}, but torch sees no CUDA device; use device: cpu")
    use_cuda = device != "cpu" and torch.cuda.is_available()
    if launcher == "slurm":
        _slurm_environment()
    rank, world_size, local_rank = _place()
    if launcher == "pytorch" and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "--launcher pytorch: WORLD_SIZE is not set; start with torchrun --nproc_per_node=N train.py ..."
        )
    own = torch.device("cpu")
    if use_cuda:
        number = _choose_gpu(device, launcher, world_size, local_rank)
        torch.cuda.set_device(number)
        own = torch.device("cuda", number)
    if world_size > 1:
        _join(world_size, "cpu:gloo,cuda:nccl" if use_cuda else "gloo", timeout)
    return Process(rank, world_size, own)
