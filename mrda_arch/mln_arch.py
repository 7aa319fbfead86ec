"""Meta-Learning Network: adapts to one degradation in a few gradient steps (paper Sec. III-B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mrda_arch.arch_util import Upscaler, build, conv3x3, leaky_relu, size
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

    @staticmethod
    def hyper_parameters(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read the constructor's arguments off the weights.

        Raises:
            ValueError: not the weights of an MLN.
        """
        num_feat, num_in_ch = size(state_dict, "body.0.weight")[:2]
        upscale = Upscaler.sizes(state_dict, "upscaler.", num_in_ch).upscale
        return {"num_in_ch": num_in_ch, "num_feat": num_feat, "upscale": upscale}

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> MLN:
        """Build the network that these weights belong to, with them; it takes the tensors over without a copy.

        Raises:
            ValueError: not the weights of an MLN.
        """
        return build(cls, cls.hyper_parameters(state_dict), state_dict)
