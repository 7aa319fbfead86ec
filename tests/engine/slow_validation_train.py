"""train.py that takes SECONDS_PER_IMAGE (1) for each image of a validation, and says when it begins."""

import os
import time
from pathlib import Path

import mrda_arch  # noqa: F401
import mrda_data  # noqa: F401
import mrda_loss  # noqa: F401
import mrda_model  # noqa: F401
from mrda_model.base_model import StageModel
from mrda_pipeline.train_pipeline import train_pipeline
from mrda_utils import compat  # noqa: F401
from mrda_utils.errors import run
from tests.model.conftest import ROOT

restorer = StageModel.restorer


def slow(model):
    restore = restorer(model)

    def wait(item):
        (Path(model.opt["path"]["run"]) / "validating").touch()
        time.sleep(float(os.environ.get("SECONDS_PER_IMAGE", "1")))
        return restore(item)

    return wait


StageModel.restorer = slow
if __name__ == "__main__":
    run(lambda: train_pipeline(ROOT))
