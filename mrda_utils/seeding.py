"""Counter-based randomness: every draw is a pure function of the run's seed and of what it is drawn for.

No generator is ever carried along, so nothing depends on rank, number of workers or history, and a resumed run needs
only its iteration.
"""

from __future__ import annotations

import numpy as np
import torch


def _seed_sequence(seed: int, purpose: str, *counters: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, *purpose.encode(), 0, *counters])


def numpy_generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Return a NumPy generator that depends on `seed` (>= 0), `purpose` and the counters (>= 0) alone."""
    return np.random.default_rng(_seed_sequence(seed, purpose, *counters))


def torch_generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a CPU torch generator that depends on `seed` (>= 0), `purpose` and the counters (>= 0) alone.

    Draw few numbers on the CPU and move them: the same then reach every device. Noise, of which there is much, is drawn
    on the device, see `mrda_data.degradation.noise`.
    """
    state = int(_seed_sequence(seed, purpose, *counters).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)
