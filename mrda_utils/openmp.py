"""How long OpenMP's threads spin while they wait for each other; import this before torch, which then reads it.

libgomp's own 300,000 rounds take the cores from other programs, and then from the thread that is waited for. None at
all (OMP_WAIT_POLICY=PASSIVE) makes a training of two threads on an idle machine 1.4 times as long; docs/performance.md
has the figures.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:  # it would not count any more
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # what libgomp takes by itself for more threads than cores
