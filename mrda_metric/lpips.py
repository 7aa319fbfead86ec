"""LPIPS (Zhang et al., CVPR 2018), version 0.1 with AlexNet, by the authors' package `lpips`.

That package ships the linear heads; the trunk is torchvision's AlexNet, whose weights the user brings as a file.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrda_metric.metric import Kind, register
from mrda_utils import checkpoint
from mrda_utils.fields import FilePath
from mrda_utils.perceptual_files import imagenet_weights
from mrda_utils.tensor_cache import tensor_cache

MIN_SIDE = 31  # pixels; AlexNet's poolings leave nothing of less


def alexnet_file(weights: str | None = None) -> Path:
    """Where the trunk's weights are: the file `weights`, or the one in torch's cache.

    Raises:
        UserError: it is not there; nothing is downloaded.
    """
    return imagenet_weights("alexnet", weights, "LPIPS, 'weights'")


@tensor_cache(maxsize=1)
def lpips_network(path: Path) -> nn.Module:
    """LPIPS with the trunk's weights from a file in torchvision's layout; its classifier is not needed.

    Raises:
        CheckpointError: a damaged file, or one that is no AlexNet.
    """
    import lpips  # takes seconds, and only those who measure LPIPS need it

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's on the way in which lpips asks for AlexNet
        # the only form that never downloads; the random trunk is replaced as a whole, below
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    stored = checkpoint.weights_of(checkpoint.load(path), "params", path)
    trunk = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}  # slice2.3.bias
    missing = [theirs for theirs in trunk.values() if theirs not in stored]
    if missing:
        raise checkpoint.CheckpointError(f"{path}: no AlexNet of torchvision, it lacks {', '.join(missing)}")
    try:
        network.net.load_state_dict({ours: stored[theirs] for ours, theirs in trunk.items()})
    except RuntimeError as error:
        raise checkpoint.CheckpointError(f"{path}: no AlexNet of torchvision ({str(error).splitlines()[1]})") from error
    return network.requires_grad_(False)


def _weights(options: dict[str, Any]) -> Path:
    path = alexnet_file(options.get("weights"))
    lpips_network(path)  # the right one?
    return path


@register(Kind(higher_is_better=False, digits=4, weights=_weights))
def calculate_lpips(img: np.ndarray, img2: np.ndarray, crop_border: int, weights: FilePath | None = None) -> float:
    """LPIPS 0.1 with AlexNet; lower is better.

    Args:
        img: (H, W, 3) uint8 BGR.
        img2: the reference, likewise.
        crop_border: left out at each side, pixels.
        weights: file of torchvision's AlexNet or of scripts/fetch_perceptual_weights.py; by default where torch's
            cache has it.

    Returns:
        The distance, 0 for equal images; NaN for images of less than 31 pixels a side, which AlexNet cannot take.

    Raises:
        UserError: no weights of AlexNet there, or a file with something else.
    """
    network = lpips_network(alexnet_file(weights))

    def rgb(image: np.ndarray) -> Tensor:
        height, width = image.shape[:2]
        image = image[crop_border : height - crop_border, crop_border : width - crop_border, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 127.5 - 1

    pair = rgb(img), rgb(img2)
    if min(pair[0].shape[2:]) < MIN_SIDE:
        return float("nan")
    with torch.no_grad():
        return float(network(*pair))
