"""A student without the rest of this project, as spandrel keeps its networks: the weights of MRDANet, torch alone.

What it computes is what `MRDANet` computes (`tests/arch/test_spandrel.py`); see docs/spandrel.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from spandrel.util import store_hyperparameters
from torch import Tensor, nn

RGB_MEAN = (0.4488, 0.4371, 0.4040)
REACH = 2  # of the bicubic kernel, source pixels


def lrelu() -> nn.LeakyReLU:
    """The networks' only non-linearity."""
    return nn.LeakyReLU(0.1, inplace=True)


def bicubic(x: Tensor, scale: int) -> Tensor:
    """MATLAB's bicubic enlargement (Keys 1981, a = -0.5), borders mirrored, edge included: (N, C, h, w) in [0, 1]."""
    for axis in (2, 3):
        size = x.shape[axis]
        index = torch.arange(-REACH, size + REACH, device=x.device) % (2 * size)
        x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    centre = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    distance = (torch.arange(-REACH, REACH + 1)[None] - centre[:, None]).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weight = near * (distance <= 1) + far * ((distance > 1) & (distance <= 2))
    kernel = torch.einsum("ya,xb->yxab", weight, weight).flatten(0, 1)[:, None].repeat(x.shape[1], 1, 1, 1)
    return F.pixel_shuffle(F.conv2d(x, kernel.to(x), groups=x.shape[1]), scale)


class DEN(nn.Module):
    """Degradation extraction network: image -> implicit degradation representation (N, 4 num_feat)."""

    def __init__(self, num_in_ch: int, num_feat: int) -> None:
        super().__init__()
        sizes = [num_in_ch, num_feat, num_feat, 2 * num_feat, 2 * num_feat, 4 * num_feat, 4 * num_feat]
        layers: list[nn.Module] = []
        for i, stride in enumerate((1, 1, 2, 1, 2, 1)):
            layers += [nn.Conv2d(sizes[i], sizes[i + 1], 3, stride, 1), lrelu()]
        self.body = nn.Sequential(*layers)
        self.mlp = nn.Sequential(nn.Linear(sizes[-1], sizes[-1]), lrelu(), nn.Linear(sizes[-1], sizes[-1]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, num_in_ch, h, w) -> (N, 4 num_feat)."""
        return self.mlp(self.body(x).mean((2, 3)))


class RDAConv(nn.Module):
    """Region degradation aware convolution: F + M * LReLU(F convolved with the kernels of the representation)."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.kernel = nn.Sequential(
            nn.Linear(num_feat, num_feat, bias=False), lrelu(), nn.Linear(num_feat, num_feat * 9, bias=False)
        )
        self.modulation = nn.Conv2d(num_feat, 1, 1)

    def forward(self, feat: Tensor, cond: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C) -> (N, C, h, w)."""
        n, c, h, w = feat.shape
        kernel = self.kernel(cond).view(n * c, 1, 3, 3)
        dynamic = F.conv2d(feat.reshape(1, n * c, h, w), kernel, padding=1, groups=n * c).view(n, c, h, w)
        return feat + torch.sigmoid(self.modulation(feat)) * F.leaky_relu(dynamic, 0.1)


class RDABlock(nn.Module):
    """RDA conv, conv, RDA conv, conv, and a residual connection."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.rda1 = RDAConv(num_feat)
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.rda2 = RDAConv(num_feat)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)

    def forward(self, feat: Tensor, cond: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C) -> (N, C, h, w)."""
        x = F.leaky_relu(self.rda1(feat, cond), 0.1)
        x = F.leaky_relu(self.conv1(x), 0.1)
        x = F.leaky_relu(self.rda2(x, cond), 0.1)
        return self.conv2(x) + feat


class RDAN(nn.Module):
    """Region degradation aware network: image and representation -> enlarged image."""

    def __init__(
        self,
        num_in_ch: int,
        num_out_ch: int,
        num_feat: int,
        num_block: int,
        upscale: int,
        idr_dim: int,
        direct: bool,
        global_residual: bool,
    ) -> None:
        super().__init__()
        self.upscale = upscale
        self.use_global_residual = global_residual
        mean = torch.tensor(RGB_MEAN) if num_in_ch == num_out_ch == 3 else torch.zeros(1)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("global_residual", torch.tensor(global_residual))
        self.head = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.compress = nn.Sequential(nn.Linear(idr_dim, num_feat, bias=False), lrelu())
        self.blocks = nn.ModuleList(RDABlock(num_feat) for _ in range(num_block))
        self.body_tail = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        layers: list[nn.Module] = []
        if direct:
            layers += [nn.Conv2d(num_feat, num_out_ch * upscale**2, 3, 1, 1), nn.PixelShuffle(upscale)]
        else:
            for factor in {2: (2,), 3: (3,), 4: (2, 2)}[upscale]:
                layers += [nn.Conv2d(num_feat, num_feat * factor**2, 3, 1, 1), nn.PixelShuffle(factor)]
            layers.append(nn.Conv2d(num_feat, num_out_ch, 3, 1, 1))
        self.upscaler = nn.Sequential(*layers)

    def forward(self, x: Tensor, idr: Tensor) -> Tensor:
        """(N, num_in_ch, h, w), (N, idr_dim) -> (N, num_out_ch, upscale h, upscale w)."""
        head = self.head(x - self.mean)
        cond = self.compress(idr)
        feat = head
        for block in self.blocks:
            feat = block(feat, cond)
        out = self.upscaler(self.body_tail(feat) + head)
        return out + (bicubic(x, self.upscale) if self.use_global_residual else self.mean)


@store_hyperparameters()
class MRDA(nn.Module):
    """Blind super-resolution with a meta-learned degradation representation (Xia et al., TIP 2023): the student."""

    hyperparameters = {}  # noqa: RUF012  (what store_hyperparameters asks for)

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 27,
        upscale: int = 4,
        den_feat: int = 64,
        direct: bool = False,
        global_residual: bool = False,
    ) -> None:
        super().__init__()
        self.den = DEN(num_in_ch, den_feat)
        self.rdan = RDAN(num_in_ch, num_out_ch, num_feat, num_block, upscale, 4 * den_feat, direct, global_residual)

    def forward(self, x: Tensor) -> Tensor:
        """(N, num_in_ch, h, w) in [0, 1] -> (N, num_out_ch, upscale h, upscale w), not clipped."""
        return self.rdan(x, self.den(x))
