"""Meta-Learning Network: adapts to one degradation in a few gradient steps (paper Sec. III-B)."""

from __future__ import annotations

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mrda_arch.arch_util import Upscaler, conv3x3, leaky_relu
from mrda_utils.resize import imresize


@ARCH_REGISTRY.register()
class MLN(nn.Module):
    """SR = upscaler(body(lq)) + bicubic(lq).

    `body` is what adaptation changes; its output is the degradation's feature map D'_T (paper Fig. 2a). `upscaler`
    is linear and frozen after bicubic pretraining.

    Args:
        num_in_ch: channels of the LR and SR image.
        num_feat: C', channels of the feature map.
        upscale: 2, 3 or 4.
    """

    def __init__(self, *, num_in_ch: int = 3, num_feat: int = 128, upscale: int = 4) -> None:
        super().__init__()
        self.upscale = upscale
        layers: list[nn.Module] = [conv3x3(num_in_ch, num_feat), leaky_relu()]
        for _ in range(6):
            layers += [conv3x3(num_feat, num_feat), leaky_relu()]
        self.body = nn.Sequential(*layers)
        self.upscaler = Upscaler(num_feat, num_in_ch, upscale)

    def forward(self, lq: Tensor) -> Tensor:
        """Super-resolve (N, C, h, w) RGB in [0, 1] to (N, C, upscale h, upscale w); not clipped."""
        return self.upscaler(self.body(lq)) + imresize(lq, self.upscale)
