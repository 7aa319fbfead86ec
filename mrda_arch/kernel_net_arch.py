"""RDAN guided by the true blur kernel (MRDA_T3 of paper Table V)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mrda_arch.arch_util import NEGATIVE_SLOPE, leaky_relu
from mrda_arch.rdan_arch import RDAN


@ARCH_REGISTRY.register()
class MRDAKernelNet(nn.Module):
    """Non-blind SR network, for comparison: five linear layers on the kernel in the place of MLN and DEN.

    Args:
        num_in_ch: channels of the LR image.
        num_out_ch: channels of the SR image.
        num_feat: C of RDAN.
        num_block: RDA blocks.
        upscale: 2, 3 or 4.
        kernel_size: of the blur, pixels.
        den_feat: w; the representation has 4 w channels, and so has each linear layer.
        upsampler: as in MRDANet.
        global_residual: as in MRDANet.
    """

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 27,
        upscale: int = 4,
        kernel_size: int = 21,
        den_feat: int = 64,
        upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle",
        global_residual: bool = False,
    ) -> None:
        super().__init__()
        self.upscale = upscale
        layers: list[nn.Module] = []
        for in_features, out_features in pairwise([kernel_size**2, *[4 * den_feat] * 5]):
            linear = nn.Linear(in_features, out_features)
            nn.init.kaiming_normal_(linear.weight, a=NEGATIVE_SLOPE)  # as in DEN
            nn.init.zeros_(linear.bias)
            layers += [linear, leaky_relu()]
        self.encoder = nn.Sequential(*layers[:-1])
        self.rdan = RDAN(
            num_in_ch=num_in_ch,
            num_out_ch=num_out_ch,
            num_feat=num_feat,
            num_block=num_block,
            upscale=upscale,
            idr_dim=4 * den_feat,
            upsampler=upsampler,
            global_residual=global_residual,
        )

    def forward(self, lq: Tensor, kernel: Tensor) -> Tensor:
        """Super-resolve `lq` (N, num_in_ch, h, w) RGB in [0, 1], blurred by `kernel` (N, k, k); output not clipped."""
        return self.rdan(lq, self.encoder(kernel.flatten(1)))
