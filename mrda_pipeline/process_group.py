"""The end of a process group: orderly, or when another process has ended."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import torch.distributed as dist

from mrda_utils.errors import UserError

LOST = r"Connection (closed|reset)|Broken pipe|[Tt]imed out"  # gloo's messages when another process is gone or silent
PATIENCE = 30  # seconds that leaving the process group may take after an error


@contextmanager
def contact_lost_ends() -> Iterator[None]:
    """Turn what the backends raise when another process has ended, or is silent for too long, into one line.

    Raises:
        UserError: naming this rank.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or re.search(LOST, str(error))
        if not dist.is_initialized() or not lost:
            raise
        raise UserError(
            f"rank {dist.get_rank()}: another process has ended or was silent for longer than dist_params.timeout "
            f"({str(error).splitlines()[0][:120]}); --auto_resume goes on from the last checkpoint"
        ) from error


def stop() -> None:
    """Leave the process group; while an exception is on its way out, within PATIENCE seconds.

    Destroying NCCL's group waits for all that is pending, which never ends if another process is gone, and keeps
    a lock that aborting needs: after an exception it is aborted at once. With gloo nothing is pending.
    """
    if not dist.is_initialized():
        return
    if sys.exc_info()[0] is None:
        dist.destroy_process_group()
        return
    aborts = "nccl" in dist.get_backend_config()

    def leave() -> None:
        with suppress(RuntimeError):  # what is on its way out says more
            dist.group.WORLD.abort() if aborts else dist.destroy_process_group()

    leaving = Thread(target=leave, daemon=True)  # one that hangs does not keep the process
    leaving.start()
    leaving.join(PATIENCE)
