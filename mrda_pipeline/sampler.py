"""Which samples each process reads in each optimizer step."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class StepSampler(Sampler):
    """Sample numbers of one rank's optimizer steps, from a given step on.

    An optimizer step reads `accumulation_steps * world_size * batch_size` consecutive samples; in micro-step a, rank r
    takes the (a * world_size + r)-th batch of them. So R ranks read together what one process reads with R times the
    accumulation steps, or with R times the batch.

    Args:
        batch_size: samples of one micro-step of one rank.
        first_step: 0-based step to begin with.
        last_step: 0-based step to stop before.
        rank: this process.
        world_size: number of processes.
        accumulation_steps: micro-steps of an optimizer step.
    """

    def __init__(
        self,
        batch_size: int,
        first_step: int,
        last_step: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation_steps: int = 1,
    ) -> None:
        self.batch_size, self.steps = batch_size, range(first_step, last_step)
        self.rank, self.world_size, self.accumulation_steps = rank, world_size, accumulation_steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the samples of a whole optimizer step, micro-step after micro-step."""
        for step in self.steps:
            starts = [
                ((step * self.accumulation_steps + micro_step) * self.world_size + self.rank) * self.batch_size
                for micro_step in range(self.accumulation_steps)
            ]
            yield [sample for start in starts for sample in range(start, start + self.batch_size)]

    def __len__(self) -> int:
        return len(self.steps)
