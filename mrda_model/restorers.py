"""How a network, or an oracle that looks at the ground truth, restores an item of a test set."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from basicsr.utils.color_util import rgb2ycbcr_pt
from torch import Tensor

from mrda_arch import MLN, MRDAKernelNet, MRDANet
from mrda_data.degradation.kernels import task_kernel
from mrda_data.sr_folder import SRFolder
from mrda_eval.evaluation import Item, Restorer
from mrda_model.adaptation import Adaptation, adapt, adapted_features, super_resolve
from mrda_utils.resize import imresize


def bicubic_restorer(scale: int) -> Restorer:
    """Plain bicubic upsampling."""
    return lambda item: imresize(item.lq, scale)


def network_restorer(net: torch.nn.Module, multiple: int = 1) -> Restorer:
    """Anything that maps lq to sr: the student, MLN without adaptation, a baseline.

    Args:
        net: called with lq alone.
        multiple: reflect lq at its lower and right side until its sides are multiples of this; sr is cropped.
    """

    def restore(item: Item) -> Tensor:
        height, width = item.lq.shape[-2:]
        padded = F.pad(item.lq, (0, -width % multiple, 0, -height % multiple), "reflect")
        sr = net(padded)
        scale = sr.shape[-1] // padded.shape[-1]
        return sr[..., : scale * height, : scale * width]

    return restore


def luma_restorer(restore: Restorer, scale: int) -> Restorer:
    """A restorer of Y alone (BT.601, 16-235) for RGB: the colours are upsampled bicubically."""

    def restore_rgb(item: Item) -> Tensor:
        rgb = imresize(item.lq, scale)
        luma = item._replace(lq=rgb2ycbcr_pt(item.lq, y_only=True))
        change = restore(luma) - rgb2ycbcr_pt(rgb, y_only=True)
        return rgb + change * (255 / 219)  # the same for R, G and B, which changes Y and leaves Cb and Cr

    return restore_rgb


def folder_restorer(folder: SRFolder) -> Restorer:
    """Another program, whose SR images are in a folder."""
    return lambda item: folder.read(*item.where).to(item.lq)


def mln_oracle(mln: MLN, adaptation: Adaptation) -> Restorer:
    """MLN adapted on the ground truth of the very image that it restores."""

    def restore(item: Item) -> Tensor:
        weights = adapt(mln, item.lq, item.gt, adaptation)
        return super_resolve(mln, weights, item.lq, imresize(item.lq, mln.upscale), adaptation)

    return restore


def teacher_oracle(net: MRDANet, mln: MLN, adaptation: Adaptation) -> Restorer:
    """Teacher guided by MLN adapted on the ground truth."""
    return lambda item: net(item.lq, adapted_features(mln, item.lq, item.gt, adaptation))


def kernel_oracle(net: MRDAKernelNet, kernel_size: int) -> Restorer:
    """A network that gets the true blur kernel of each image."""
    return lambda item: net(item.lq, task_kernel(item.task, kernel_size).to(item.lq)[None])
