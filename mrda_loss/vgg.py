"""Which ImageNet weights the perceptual loss takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mrda_utils.errors import UserError
from mrda_utils.perceptual_files import imagenet_weights

RANDOM = "random"


def vgg_path(opt: dict[str, Any], debug: bool) -> Path | None:
    """Return the file of a `perceptual_opt` section's `vgg_weights`; None for untrained ones, which tests use.

    Raises:
        UserError: no such file, or untrained weights outside a --debug run.
    """
    option, weights = "train.perceptual_opt.vgg_weights", opt.get("vgg_weights")
    if weights != RANDOM:
        return imagenet_weights(opt.get("vgg_type", "vgg19"), weights, option)
    if not debug:
        raise UserError(f"{option}: '{RANDOM}' trains on noise; only --debug runs take it")
    return None
