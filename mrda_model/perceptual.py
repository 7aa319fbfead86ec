"""BasicSR's perceptual loss on local VGG weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torchvision
from basicsr.archs import vgg_arch
from basicsr.losses import build_loss
from torch import nn

from mrda_loss.vgg import vgg_path
from mrda_utils import checkpoint


def build_perceptual_loss(opt: dict) -> nn.Module:
    """Build `PerceptualLoss` (see BasicSR) on the VGG of `vgg_type` with the weights of `vgg_weights` (see `vgg_path`).

    BasicSR would look for the weights relative to the working directory, and else download them on every process.
    """
    path = vgg_path(opt, debug=True)  # the command line has refused what it should
    opt = {key: value for key, value in opt.items() if key != "vgg_weights"}

    def vgg(pretrained: bool) -> nn.Module:
        net = getattr(torchvision.models, opt["vgg_type"])(weights=None, init_weights=False)
        if path is not None:
            _load_features(net.features, path, opt["vgg_type"])
        return net

    with (
        patch.object(vgg_arch, "vgg", SimpleNamespace(**{opt["vgg_type"]: vgg})),
        patch.object(vgg_arch, "VGG_PRETRAIN_PATH", ""),
    ):
        return build_loss(opt)


def _load_features(features: nn.Module, path: Path, vgg_type: str) -> None:
    """Load the convolutions of a file, whether or not it has the classifier as well."""
    stored = checkpoint.weights_of(checkpoint.load(path), "params", path)
    own = {name.removeprefix("features."): value for name, value in stored.items() if name.startswith("features.")}
    try:
        features.load_state_dict(own)
    except RuntimeError as error:
        raise checkpoint.CheckpointError(
            f"{path}: no {vgg_type} of torchvision: {checkpoint.reasons(error)}"
        ) from error
