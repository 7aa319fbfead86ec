"""Test trained networks and write a report: python test.py -opt options/test_gaussian8.yml."""

import mrda_utils.openmp  # noqa: F401  (before torch)

import sys
from pathlib import Path

import mrda_arch  # noqa: F401  (these imports register networks, data sets, losses and stages)
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
from mrda_pipeline.benchmark_pipeline import test_pipeline
from mrda_utils.errors import run

if __name__ == "__main__":
    run(
        lambda: sys.exit(test_pipeline(Path(__file__).resolve().parent)),
        interrupted="interrupted; no report is written",
    )
