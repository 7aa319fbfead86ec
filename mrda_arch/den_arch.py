"""Degradation Extraction Network: compresses a feature map or an LR image to one vector (paper Fig. 2b, 2c)."""

from __future__ import annotations

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mrda_arch.arch_util import NEGATIVE_SLOPE, conv3x3, fast_layout, leaky_relu


@ARCH_REGISTRY.register()
class DEN(nn.Module):
    """Six convolutions, global average pooling and two linear layers.

    Args:
        num_in_ch: 3 for the student (LR image), C' for the teacher (MLN's feature map).
        num_feat: w; the representation has 4 w channels (the "4C" of paper Eq. 4 and 5).
    """

    def __init__(self, *, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        w = num_feat
        layers: list[nn.Module] = []
        for in_ch, out_ch, stride in (
            (num_in_ch, w, 1),
            (w, w, 1),
            (w, 2 * w, 2),
            (2 * w, 2 * w, 1),
            (2 * w, 4 * w, 2),
            (4 * w, 4 * w, 1),
        ):
            layers += [conv3x3(in_ch, out_ch, stride), leaky_relu()]
        self.body = nn.Sequential(*layers)
        self.mlp = nn.Sequential(nn.Linear(4 * w, 4 * w), leaky_relu(), nn.Linear(4 * w, 4 * w))
        for layer in (*self.body, *self.mlp):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # keeps the signal's variance (He et al. 2015); torch's default lets it fade over eight layers, and
                # the representation then starts as a constant
                nn.init.kaiming_normal_(layer.weight, a=NEGATIVE_SLOPE)
                nn.init.zeros_(layer.bias)

    def forward(self, cond: Tensor) -> Tensor:
        """Map (N, num_in_ch, h, w) of any size to the implicit degradation representation (N, 4 num_feat)."""
        # a mean, not AdaptiveAvgPool2d: its backward on CUDA is not deterministic
        return self.mlp(self.body(fast_layout(cond)).mean((2, 3)))
