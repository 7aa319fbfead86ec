"""Networks that a stage reads and does not train, and how their weights are checked."""

from __future__ import annotations

import torch
from basicsr.archs import build_network
from torch import nn

from mrda_model.weights import load_network


def freeze(net: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients."""
    return net.eval().requires_grad_(False)


def build_frozen(opt: dict, path: str, stage: str, device: torch.device, degradation: str | None = None) -> nn.Module:
    """Build a network that is only read, with the weights of the stage that trained it (on this degradation)."""
    net = build_network(opt)
    load_network(net, path, stage=stage, degradation=degradation)
    return freeze(net.to(device))


def demanded_degradation(opt: dict) -> str | None:
    """What the weights of a stage's frozen networks must be trained on; None where it fine-tunes: on anything."""
    return None if "finetune_network_g" in opt["path"] else degradation_name(opt["degradation"])


def degradation_name(opt: dict) -> str:
    """One line for an option file's `degradation` section, to compare checkpoints by."""
    return ", ".join(f"{key} {value}" for key, value in opt.items())
