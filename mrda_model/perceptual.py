"""BasicSR's perceptual loss on VGG19 weights that are there."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch

import torchvision
from basicsr.archs import vgg_arch
from basicsr.losses import build_loss
from torch import nn

from mrda_loss.vgg import vgg_path
from mrda_utils import checkpoint


def build_perceptual_loss(opt: dict) -> nn.Module:
    """Build `PerceptualLoss` (see BasicSR) on VGG19 with the weights of `vgg_weights` (see `vgg_path`).

    BasicSR would look for the weights relative to the working directory, and else download them on every process.
    """
    opt = {**opt}
    path = vgg_path(opt.pop("vgg_weights", None), debug=True)  # the command line has refused what it should

    def vgg19(pretrained: bool) -> nn.Module:
        net = torchvision.models.vgg19(weights=None, init_weights=False)
        if path is not None:
            checkpoint.load_network(net, path, "params")
        return net

    with (
        patch.object(vgg_arch, "vgg", SimpleNamespace(vgg19=vgg19)),
        patch.object(vgg_arch, "VGG_PRETRAIN_PATH", ""),
    ):
        return build_loss(opt)
