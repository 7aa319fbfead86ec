"""Train one stage: python train.py -opt options/train_teacher_x4.yml."""

import mrda_utils.openmp  # noqa: F401  (before torch)

from pathlib import Path

import mrda_arch  # noqa: F401  (these imports register networks, data sets, losses and stages)
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_utils.errors import run

if __name__ == "__main__":
    run(lambda: train_pipeline(Path(__file__).resolve().parent))
