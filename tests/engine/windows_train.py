"""train.py where Python is as on Windows: modules and functions that it lacks there are gone, folders cannot be opened.

Libraries come first: they are installed for the system that this really is.
"""

import os
import signal
import sys

import filelock  # noqa: F401
import torch

from mrda_utils import compat  # noqa: F401

import basicsr.models  # noqa: F401  # isort: skip  (after `compat`)

sys.modules |= dict.fromkeys(("fcntl", "grp", "pwd", "resource", "termios"))
for module, names in (
    (os, ("getuid", "killpg", "pwrite", "register_at_fork", "setsid", "statvfs")),
    (signal, ("SIGHUP", "SIGKILL")),
):
    for name in names:
        delattr(module, name)
open_file = os.open


def open_no_folder(path, flags, *args, **kwargs):
    """Refuse folders."""
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_file(path, flags, *args, **kwargs)


os.open = open_no_folder
platform, sys.platform = sys.platform, "win32"  # for the modules of this project alone

import mrda_arch  # noqa: E402, F401
import mrda_data  # noqa: E402, F401
import mrda_loss  # noqa: E402, F401
import mrda_model  # noqa: E402, F401
from mrda_pipeline.train_pipeline import train_pipeline  # noqa: E402
from mrda_utils.errors import run  # noqa: E402
from tests.model.conftest import ROOT  # noqa: E402

sys.platform = platform

if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    run(lambda: train_pipeline(ROOT))
