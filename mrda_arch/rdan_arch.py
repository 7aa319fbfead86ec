"""Region Degradation Aware SR network (paper Sec. III-E)."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mrda_arch.arch_util import NEGATIVE_SLOPE, Upscaler, conv3x3, fast_layout, is_fast_layout, leaky_relu
from mrda_utils.resize import imresize

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in [0, 1]


def depthwise_per_sample(feat: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of each sample with its own kernel, zero padded.

    (N, C, h, w) and (N, C, k, k) -> (N, C, h, w). One grouped convolution with N * C groups is far faster than a loop
    over samples, but for samples that are channels last on the CPU: for those it would rearrange everything, and a loop
    need not.
    """
    n, c, h, w = feat.shape
    k = kernel.shape[-1]
    if is_fast_layout(feat):
        samples = zip(feat.split(1), kernel, strict=True)
        out = [F.conv2d(x, own[:, None], padding=k // 2, groups=c) for x, own in samples]
        return torch.cat(out) if n > 1 else out[0]
    out = F.conv2d(feat.reshape(1, n * c, h, w), kernel.reshape(n * c, 1, k, k), padding=k // 2, groups=n * c)
    return out.view(n, c, h, w)


def kernel_mlp(num_feat: int) -> nn.Sequential:
    """Compressed representation (N, C) -> one 3x3 kernel a channel (N, 9 C)."""
    return nn.Sequential(
        nn.Linear(num_feat, num_feat, bias=False), leaky_relu(), nn.Linear(num_feat, num_feat * 9, bias=False)
    )


class RDAConv(nn.Module):
    """Region degradation aware convolution: F + M * LReLU(DynamicConv(F; w(D))), M = sigmoid(conv(F)) (Eq. 8-10).

    The published code has the LeakyReLU and a single-channel M, and the paper's parameter count agrees with it.
    """

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.kernel = kernel_mlp(num_feat)
        self.modulation = nn.Conv2d(num_feat, 1, 1)

    def forward(self, feat: Tensor, cond: Tensor) -> Tensor:
        """Modulate `feat` (N, C, h, w) by the compressed representation `cond` (N, C)."""
        kernel = self.kernel(cond).view(*feat.shape[:2], 3, 3)
        dynamic = F.leaky_relu(depthwise_per_sample(feat, kernel), NEGATIVE_SLOPE, inplace=True)
        m = torch.sigmoid(self._modulation(feat))
        # in place where no gradient needs it: a new map of a large image comes from pages that were never touched
        return (dynamic * m if torch.is_grad_enabled() else dynamic.mul_(m)).add_(feat)

    def _modulation(self, feat: Tensor) -> Tensor:
        if not is_fast_layout(feat):
            return self.modulation(feat)
        # the same map (N, 1, h, w); oneDNN's backward of a convolution to one channel costs five times as much
        return F.linear(feat.permute(0, 2, 3, 1), self.modulation.weight[:, :, 0, 0], self.modulation.bias).permute(
            0, 3, 1, 2
        )


class DAConv(nn.Module):
    """Degradation aware convolution of DASR (Wang et al., CVPR 2021): conv1x1(LReLU(DynamicConv(F; w(D)))) + a(D) * F.

    What MRDA_S4 has in the place of the RDA conv (paper Table V): the representation weighs whole channels, no region.

    Args:
        num_feat: C.
        vanilla: one learned depthwise kernel for every D in the place of the dynamic convolution (MRDA_S5).
    """

    def __init__(self, num_feat: int, *, vanilla: bool = False) -> None:
        super().__init__()
        self.vanilla = vanilla
        self.kernel = (
            nn.Conv2d(num_feat, num_feat, 3, 1, 1, groups=num_feat, bias=False) if vanilla else kernel_mlp(num_feat)
        )
        self.conv = nn.Conv2d(num_feat, num_feat, 1)
        hidden = max(1, num_feat // 8)
        self.attention = nn.Sequential(
            nn.Linear(num_feat, hidden, bias=False), leaky_relu(), nn.Linear(hidden, num_feat, bias=False), nn.Sigmoid()
        )

    def forward(self, feat: Tensor, cond: Tensor) -> Tensor:
        """Modulate `feat` (N, C, h, w) by the compressed representation `cond` (N, C)."""
        if self.vanilla:
            filtered = self.kernel(feat)
        else:
            filtered = depthwise_per_sample(feat, self.kernel(cond).view(*feat.shape[:2], 3, 3))
        return self.conv(F.leaky_relu(filtered, NEGATIVE_SLOPE)) + self.attention(cond)[:, :, None, None] * feat


Modulation = Literal["rdam", "da", "da_vanilla"]
_MODULATIONS = {"rdam": RDAConv, "da": DAConv, "da_vanilla": partial(DAConv, vanilla=True)}


class RDABlock(nn.Module):
    """RDA conv, conv, RDA conv, conv with a residual connection (paper Fig. 2, yellow box)."""

    def __init__(self, num_feat: int, modulation: Modulation = "rdam") -> None:
        super().__init__()
        modulate = _MODULATIONS[modulation]
        self.rda1 = modulate(num_feat)
        self.conv1 = conv3x3(num_feat, num_feat)
        self.rda2 = modulate(num_feat)
        self.conv2 = conv3x3(num_feat, num_feat)

    def forward(self, feat: Tensor, cond: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C) -> (N, C, h, w)."""
        x = F.leaky_relu(self.rda1(feat, cond), NEGATIVE_SLOPE, inplace=True)
        x = F.leaky_relu(self.conv1(x), NEGATIVE_SLOPE, inplace=True)
        x = F.leaky_relu(self.rda2(x, cond), NEGATIVE_SLOPE, inplace=True)
        return self.conv2(x).add_(feat)


@ARCH_REGISTRY.register()
class RDAN(nn.Module):
    """Restores an LR image under the guidance of an implicit degradation representation.

    Args:
        num_in_ch: channels of the LR image; with 3 the RGB mean of DIV2K is subtracted and added back.
        num_out_ch: channels of the SR image.
        num_feat: C.
        num_block: RDA blocks (paper: 27).
        upscale: 2, 3 or 4.
        idr_dim: channels of the representation, 4 times DEN's `num_feat`.
        upsampler: `pixelshuffle` is the paper's; `pixelshuffledirect` (one convolution, one shuffle) suits small nets.
        global_residual: add the bicubic upsampling of the LR image to the output. Not in the paper; small networks
            train faster with it.
        modulation: how the representation acts on the features, for ablations: `rdam` (paper), `da` (DASR's), or
            `da_vanilla` (that without dynamic convolutions).
    """

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 27,
        upscale: int = 4,
        idr_dim: int = 256,
        upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle",
        global_residual: bool = False,
        modulation: Modulation = "rdam",
    ) -> None:
        super().__init__()
        if modulation not in _MODULATIONS:
            raise ValueError(f"modulation: {modulation!r} is not known, choose {' or '.join(map(repr, _MODULATIONS))}")
        if upsampler not in ("pixelshuffle", "pixelshuffledirect"):
            raise ValueError(f"upsampler: {upsampler!r} is not known, choose 'pixelshuffle' or 'pixelshuffledirect'")
        if global_residual and num_in_ch != num_out_ch:
            raise ValueError(f"global_residual needs num_in_ch == num_out_ch, not {num_in_ch} and {num_out_ch}")
        if upsampler == "pixelshuffledirect" and num_in_ch != num_out_ch:  # else its shape would not give the scale
            raise ValueError(f"pixelshuffledirect needs num_in_ch == num_out_ch, not {num_in_ch} and {num_out_ch}")
        self.upscale = upscale
        mean = torch.tensor(RGB_MEAN) if num_in_ch == num_out_ch == 3 else torch.zeros(1)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        # a buffer, not an attribute: it must be in checkpoints, since no shape shows it
        self.register_buffer("global_residual", torch.tensor(global_residual))
        self.use_global_residual = global_residual
        self.head = conv3x3(num_in_ch, num_feat)
        self.compress = nn.Sequential(nn.Linear(idr_dim, num_feat, bias=False), leaky_relu())
        self.blocks = nn.ModuleList(RDABlock(num_feat, modulation) for _ in range(num_block))
        self.body_tail = conv3x3(num_feat, num_feat)
        self.upscaler = Upscaler(num_feat, num_out_ch, upscale, direct=upsampler == "pixelshuffledirect")

    def forward(self, lq: Tensor, idr: Tensor) -> Tensor:
        """Super-resolve `lq` (N, num_in_ch, h, w) RGB in [0, 1] with `idr` (N, idr_dim); output not clipped."""
        head = self.head(fast_layout(lq - self.mean))
        cond = self.compress(idr)
        feat = head
        for block in self.blocks:
            feat = block(feat, cond)
        out = self.upscaler(self.body_tail(feat) + head).contiguous()
        return out + (imresize(lq, self.upscale) if self.use_global_residual else self.mean)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        stored = state_dict.get(f"{prefix}global_residual")
        super()._load_from_state_dict(state_dict, prefix, *args)
        if stored is not None and bool(stored) != self.use_global_residual:
            self.global_residual.fill_(self.use_global_residual)
            args[-1].append(
                f"global_residual: the checkpoint was trained with {bool(stored)}, the option says "
                f"{self.use_global_residual}"
            )


def modulation_maps(net: nn.Module, *inputs: Tensor) -> Tensor:
    """M of every RDA conv, (K, h, w) in [0, 1], as `net(*inputs)` computes them for one image (paper Eq. 9, Fig. 10).

    Args:
        net: a network with RDA convs: RDAN, MRDANet.
        inputs: of `net`, batch size 1.

    Raises:
        ValueError: `net` has no RDA conv.
    """
    maps: list[Tensor] = []

    def keep(module: RDAConv, inputs: tuple[Tensor, Tensor]) -> None:
        maps.append(torch.sigmoid(module.modulation(inputs[0]))[0, 0])

    hooks = [module.register_forward_pre_hook(keep) for module in net.modules() if isinstance(module, RDAConv)]
    if not hooks:
        raise ValueError(f"{type(net).__name__} has no RDA conv, so there is no modulation map")
    try:
        net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)
