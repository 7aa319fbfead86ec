"""Where VGG19's ImageNet weights are."""

from __future__ import annotations

from pathlib import Path

import torch

from mrda_utils.errors import UserError

FILE = "vgg19-dcbb9e9d.pth"  # torchvision's name for them
RANDOM = "random"


def vgg_path(vgg_weights: str | None, debug: bool) -> Path | None:
    """Return the file named, or the one in torch's cache; None for untrained weights, which tests use.

    Raises:
        UserError: no such file, or untrained weights outside a --debug run.
    """
    if vgg_weights == RANDOM:
        if not debug:
            raise UserError(f"train.perceptual_opt.vgg_weights: '{RANDOM}' trains on noise; only --debug runs take it")
        return None
    path = Path(vgg_weights) if vgg_weights else Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not path.is_file():
        raise UserError(
            f"train.perceptual_opt.vgg_weights: {path} does not exist; download "
            f"https://download.pytorch.org/models/{FILE} to it, or leave perceptual_opt out"
        )
    return path
