"""train.py whose loader hangs after some images."""

import time

import mrda_arch  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_data import GTDataset
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_utils import compat  # noqa: F401
from mrda_utils.errors import run
from tests.model.conftest import ROOT

read = GTDataset.__getitem__


def hang(dataset, sample):
    if sample >= 40:
        time.sleep(1000)
    return read(dataset, sample)


GTDataset.__getitem__ = hang
run(lambda: train_pipeline(ROOT))
