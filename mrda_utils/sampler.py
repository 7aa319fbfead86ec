"""Which samples each process reads in each optimizer step."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class StepSampler(Sampler):
    """Sample numbers of one rank's batches, from a given optimizer step on.

    An optimizer step reads `world_size * batch_size` consecutive samples, rank r the r-th part of them. So R ranks
    read together what one process with R times the batch reads.

    Args:
        batch_size: samples that one rank reads in a step.
        first_step: 0-based step to begin with.
        last_step: 0-based step to stop before.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, batch_size: int, first_step: int, last_step: int, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size, self.steps = batch_size, range(first_step, last_step)
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            start = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))

    def __len__(self) -> int:
        return len(self.steps)
