"""train.py in double precision, for comparisons that rounding must not blur."""

import torch

from mrda_utils import compat  # noqa: F401

torch.set_default_dtype(torch.float64)

import mrda_arch  # noqa: E402, F401
import mrda_data  # noqa: E402, F401
import mrda_loss  # noqa: E402, F401
import mrda_model  # noqa: E402, F401
from mrda_pipeline.train_pipeline import train_pipeline  # noqa: E402
from mrda_utils.errors import run  # noqa: E402
from tests.model.conftest import ROOT  # noqa: E402

run(lambda: train_pipeline(ROOT))
