"""Modulation maps of a student's RDA convs (paper Fig. 10)."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr
from torch import Tensor

from mrda_arch.rdan_arch import RDAConv, modulation_maps
from mrda_data.degradation.classic import classic_degrade
from mrda_data.sources import open_source
from mrda_eval.report import write_csv
from mrda_pipeline.figures.setting import KERNEL_SIZE, Setting, pyplot, save
from mrda_utils.errors import OptionError
from mrda_utils.seeding import torch_generator


class Modulation(NamedTuple):
    """One RDA conv's map on one image."""

    image: str
    rda_conv: int
    mean: float
    std: float
    texture_correlation: float
    """Spearman's, with the standard deviation of luma in 5x5 LR pixels."""


def texture(lq: Tensor, size: int = 5) -> np.ndarray:
    """Standard deviation (h, w) of luma in a window around each pixel of (1, 3, h, w)."""
    luma = (lq[0].cpu() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).double().numpy()
    variance = uniform_filter(luma**2, size) - uniform_filter(luma, size) ** 2
    return np.sqrt(variance.clip(0))


def draw_rdam(setting: Setting, args: argparse.Namespace) -> None:
    """HR image, mean map and last map, a column per image; rdam.csv."""
    net, scale = setting.networks.student, setting.opt["scale"]
    if net is None:
        raise OptionError(f"-opt {args.opt}: network_g is missing, whose maps are drawn")
    if not any(isinstance(module, RDAConv) for module in net.modules()):
        raise OptionError(f"-opt {args.opt}: network_g has no RDAM, so there is no modulation map")
    if args.width <= 0:
        raise OptionError(f"--width {args.width}: must be positive")
    task = {"sigma_x": args.width, "sigma_y": args.width, "theta": 0.0, "noise_sigma_255": 0.0}
    source = open_source(setting.images)
    names = source.names[:6]  # the figure's width
    plot, axes = pyplot().subplots(3, len(names), figsize=(4 * len(names), 9), squeeze=False, layout="constrained")
    rows = []
    for column, name in zip(axes.T, names, strict=True):
        image = torch.from_numpy(source.read(source.names.index(name))).permute(2, 0, 1).float()[None] / 255
        gt = image[..., : image.shape[-2] // scale * scale, : image.shape[-1] // scale * scale]
        lq = classic_degrade(gt, task, scale, KERNEL_SIZE, torch_generator(0, "rdam"))
        maps, detail = modulation_maps(net, lq.to(setting.device)).float().cpu().numpy(), texture(lq)
        for number, found in enumerate(maps, 1):
            correlation = float(spearmanr(found.ravel(), detail.ravel()).statistic)
            rows.append(Modulation(name, number, float(found.mean()), float(found.std()), correlation))
        column[0].imshow(gt[0].permute(1, 2, 0).numpy())
        for axis, found, title in ((column[1], maps.mean(0), "M, mean of all"), (column[2], maps[-1], "M, last")):
            drawn = axis.imshow(found, cmap="viridis")
            axis.set_title(title)
            plot.colorbar(drawn, ax=axis, fraction=0.046)
        column[0].set_title(name)
        for axis in column:
            axis.set(xticks=[], yticks=[])
    save(plot, setting.output / "rdam.png")
    write_csv(rows, Modulation._fields, setting.output / "rdam.csv")
