from __future__ import annotations

import numpy as np
import pytest
import torch

from mrda_pipeline.sampler import StepSampler
from mrda_utils.seeding import numpy_generator, torch_generator


def first(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand((), generator=generator, dtype=torch.float64).item()
    return generator.random()


@pytest.mark.parametrize("make", [numpy_generator, torch_generator])
def test_a_draw_depends_on_seed_purpose_and_counters_alone(make):
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0), (0, "ab"), (0, "a", 1, 2)]
    draws = [first(make(*key)) for key in keys]
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    assert [first(make(*key)) for key in reversed(keys)] == draws[::-1]
    assert len(set(draws)) == len(draws)


def test_global_generators_are_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    torch_generator(0, "x", 1)
    assert torch.equal(torch.rand(3), expected)


def test_ranks_read_together_what_one_process_reads():
    one = list(StepSampler(6, 0, 4))
    ranks = [list(StepSampler(3, 0, 4, rank, 2)) for rank in range(2)]
    assert one == [a + b for a, b in zip(*ranks, strict=True)]


def test_a_resumed_sampler_goes_on_where_it_stopped():
    assert list(StepSampler(3, 0, 7, 1, 2))[4:] == list(StepSampler(3, 4, 7, 1, 2))
    assert len(StepSampler(3, 4, 7)) == 3
