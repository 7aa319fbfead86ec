"""Perceptual and adversarial training of teacher and student (paper Eq. 3 and 7)."""

from __future__ import annotations

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from torch import Tensor, nn

from mrda_data.degradation.sharpen import usm_sharpen
from mrda_model.adaptation import TaskBatch
from mrda_model.parallel import parallel, reduced_once
from mrda_model.perceptual import build_perceptual_loss
from mrda_model.precision import autocast
from mrda_model.weights import load_network

POWER_ITERATIONS = 20  # before the first step: largest singular values to a few percent
DRIFT_STEPS = 100


class Adversary:
    """A discriminator with its optimizer, and the losses that it and VGG give the generator.

    Spectral normalisation takes one power iteration an optimizer step, at its start, however many forward passes there
    are: accumulated and distributed steps agree.

    Args:
        opt: complete options with `network_d`, `train.gan_opt`, `train.optim_d` and perhaps `train.perceptual_opt`.
        device: of the networks.
    """

    def __init__(self, opt: dict, device: torch.device) -> None:
        train_opt = opt["train"]
        self.device, self.amp = device, train_opt["amp"]
        self.bare = build_network(opt["network_d"]).to(device).eval()
        for _ in range(POWER_ITERATIONS):
            self.power_iteration()
        if "pretrain_network_d" in opt["path"]:
            load_network(self.bare, opt["path"]["pretrain_network_d"], "params")
        self.net_d = parallel(self.bare, device, broadcast_buffers=False) if opt["dist"] else self.bare
        self.cri_gan = build_loss(train_opt["gan_opt"]).to(device)
        self.cri_perceptual = None
        if "perceptual_opt" in train_opt:
            self.cri_perceptual = build_perceptual_loss(train_opt["perceptual_opt"]).to(device)
        optim_opt = {**train_opt["optim_d"]}
        optim_opt.pop("type")
        self.optimizer = torch.optim.Adam(self.bare.parameters(), **optim_opt, fused=True)
        self.gt_usm = train_opt["gan_gt_usm"]
        self.iters, self.init_iters = train_opt["net_d_iters"], train_opt["net_d_init_iters"]
        self.shift = torch.zeros(3, device=device)

    def power_iteration(self) -> None:
        """Follow the weights' largest singular values; once, before anything else of an optimizer step."""
        with torch.no_grad():
            example = next(self.bare.parameters())
            self.bare.train()(example.new_zeros(1, example.shape[1], 8, 8))
        self.bare.eval()

    def generator_turn(self, current_iter: int) -> bool:
        """Whether the generator takes a step in this iteration."""
        return current_iter % self.iters == 0 and current_iter > self.init_iters

    def generator_losses(self, sr: Tensor, perceptual_gt: Tensor) -> dict[str, Tensor]:
        """Losses of the generator: `sr` (N, 3, H, W) must look real, and like `perceptual_gt` to VGG."""
        losses = {}
        if self.cri_perceptual is not None:
            with autocast(self.device, self.amp):
                perceptual, style = self.cri_perceptual(sr, perceptual_gt)
            if perceptual is not None:
                losses["l_percep"] = perceptual.to(sr)
            if style is not None:
                losses["l_style"] = style.to(sr)
        self.bare.requires_grad_(False)
        losses["l_g_gan"] = self.cri_gan(self._judge(self.bare, sr), True, is_disc=False)
        return losses

    def accumulate(self, sr: Tensor, batch: TaskBatch, step: int, steps: int) -> dict[str, Tensor]:
        """Add the discriminator's gradients on micro-batch `step` of `steps`; return losses and colour drift."""
        self.bare.requires_grad_(True)
        with reduced_once(self.net_d, step == steps - 1):
            gt = usm_sharpen(batch.gt) if self.gt_usm else batch.gt
            fake, real = self._judge(self.net_d, torch.cat([sr.detach(), gt])).chunk(2)
            losses = {
                "l_d_real": self.cri_gan(real, True, is_disc=True),
                "l_d_fake": self.cri_gan(fake, False, is_disc=True),
            }
            (sum(losses.values()) / steps).backward()
        return {**losses, "colour_drift": self.colour_drift(sr, batch.lq)}

    def colour_drift(self, sr: Tensor, lq: Tensor) -> Tensor:
        """Largest shift of a channel's mean between SR (N, 3, sH, sW) and LR (N, 3, H, W), in 1/255.

        The shift that all images share: an adversarial loss does not see it, and it grows slowly. What differs from
        batch to batch is averaged away over about `DRIFT_STEPS` calls; the average starts from zero with each process.
        """
        now = 255 * (sr.detach().mean((0, 2, 3)) - lq.mean((0, 2, 3)))
        self.shift = torch.where(now.isfinite(), self.shift.lerp(now, 1 / DRIFT_STEPS), self.shift)
        return self.shift.abs().max()

    def _judge(self, net: nn.Module, image: Tensor) -> Tensor:
        with autocast(self.device, self.amp):
            return net(image).to(image)
