"""A network from a file of weights alone."""

from __future__ import annotations

import json
from pathlib import Path

from mrda_arch.mln_arch import MLN
from mrda_arch.mrda_net_arch import MRDANet
from mrda_utils import checkpoint
from mrda_utils.checkpoint import CheckpointError

AUTHOR, LICENSE = "The MRDA plugin authors", "Apache-2.0"


def network_from_file(path: str | Path) -> MRDANet | MLN:
    """Build the network for the weights (averaged ones where there are any) in a .pth or .safetensors file.

    Returns:
        MRDANet or MLN in float32 and evaluation mode, without gradients.

    Raises:
        CheckpointError: the file cannot be read, or contains weights of another network.
    """
    weights = checkpoint.weights_of(checkpoint.load(path), "params_ema", path)
    network = MRDANet if any(name.startswith("den.") for name in weights) else MLN
    try:
        net = network.from_state_dict(weights)
    except ValueError as error:
        raise CheckpointError(f"{path}: no weights of MRDANet or MLN; {error}") from error
    return net.float().eval().requires_grad_(False)


def about(net: MRDANet | MLN, title: str) -> dict[str, str]:
    """What a file of these weights says about itself: by the ModelSpec convention, and for option files."""
    kind = type(net).__name__
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": kind,
        "modelspec.implementation": "mrda",
        "modelspec.title": title,
        "modelspec.author": AUTHOR,
        "modelspec.license": LICENSE,
        "mrda.network": json.dumps({"type": kind, **net.hyper_parameters(net.state_dict())}),
    }
