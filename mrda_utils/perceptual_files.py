"""Where the ImageNet weights of AlexNet and VGG are, for LPIPS and the perceptual loss; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from mrda_utils.errors import UserError

TORCHVISION = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
}
"""Names of torchvision's files."""
FEATURES = {"alexnet": "alexnet_features.pth", "vgg16": "vgg16_features.pth"}
"""Names of what scripts/fetch_perceptual_weights.py writes: the same without classifiers."""


def torch_cache() -> Path:
    """Where torch keeps what it has downloaded."""
    return Path(torch.hub.get_dir(), "checkpoints")


def imagenet_weights(network: str, named: str | None, option: str) -> Path:
    """Return the file `named`, or the one that is in torch's cache.

    Args:
        network: alexnet, vgg16 or vgg19.
        named: a file, by the option's value.
        option: for the message.

    Raises:
        UserError: there is none.
    """
    usual = [names[network] for names in (TORCHVISION, FEATURES) if network in names]
    paths = [Path(named)] if named else [torch_cache() / name for name in usual]
    for path in paths:
        if path.is_file():
            return path
    advice = "`python scripts/fetch_perceptual_weights.py` fetches them; or " if network in FEATURES else ""
    raise UserError(
        f"{option}: no weights of {network}, {paths[0]} does not exist; {advice}put "
        f"https://download.pytorch.org/models/{TORCHVISION[network]} there, or name a file"
    )
