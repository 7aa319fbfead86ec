"""What restoring takes is known before: the estimate is compared with the growth of a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import re, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from mrda_arch import MRDANet
from mrda_inference import network_functions, photograph
from mrda_inference.upscaler import Upscaler, bytes_a_pixel

num_feat, upsampler, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
torch.set_num_threads(1)
net = MRDANet(num_feat=num_feat, num_block=1, den_feat=4, upsampler=upsampler, global_residual=True).eval()
upscaler = Upscaler(net, *network_functions(net, "cpu"), torch.device("cpu"))
photograph.automatic_tile = lambda *_: None  # as one tile
peaks = []
for side in (32, 600):
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(folder / "a.png")
    photograph.restore_file(folder / "a.png", folder / "b.png", upscaler)
    status = Path("/proc/self/status").read_text()  # resource's figure begins at that of the parent
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)
print((peaks[1] - peaks[0]) / 600**2, bytes_a_pixel(net) + 3 * net.upscale**2 + 3)  # and output and input themselves
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize(
    ("num_feat", "upsampler"), [(6, "pixelshuffledirect"), (48, "pixelshuffledirect"), (64, "pixelshuffle")]
)
def test_an_estimate_is_enough_and_not_much_too_much(tmp_path, num_feat, upsampler):
    command = [sys.executable, "-c", SCRIPT, str(num_feat), upsampler, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured, estimate = map(float, done.stdout.split())
    assert estimate / 2.5 < measured < estimate
