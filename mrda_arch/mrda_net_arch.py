"""DEN and RDAN together: the teacher MRDA_T and the student MRDA_S (paper Sec. III-C, III-D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from mrda_arch.arch_util import Upscaler, build, size
from mrda_arch.den_arch import DEN
from mrda_arch.rdan_arch import RDAN, Modulation


@ARCH_REGISTRY.register()
class MRDANet(nn.Module):
    """Blind SR network; teacher and student differ in `den_in_ch` alone.

    Args:
        num_in_ch: channels of the LR image.
        num_out_ch: channels of the SR image.
        num_feat: C of RDAN.
        num_block: RDA blocks.
        upscale: 2, 3 or 4.
        den_in_ch: 3 for the student (DEN sees the LR image), MLN's `num_feat` for the teacher.
        den_feat: w of DEN; the representation has 4 w channels.
        upsampler: `pixelshuffle` is the paper's; `pixelshuffledirect` (one convolution, one shuffle) suits small nets.
        global_residual: add the bicubic upsampling of the LR image to the output; not in the paper.
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
        den_in_ch: int = 3,
        den_feat: int = 64,
        upsampler: Literal["pixelshuffle", "pixelshuffledirect"] = "pixelshuffle",
        global_residual: bool = False,
        modulation: Modulation = "rdam",
    ) -> None:
        super().__init__()
        self.upscale = upscale
        self.den = DEN(num_in_ch=den_in_ch, num_feat=den_feat)
        self.rdan = RDAN(
            num_in_ch=num_in_ch,
            num_out_ch=num_out_ch,
            num_feat=num_feat,
            num_block=num_block,
            upscale=upscale,
            idr_dim=4 * den_feat,
            upsampler=upsampler,
            global_residual=global_residual,
            modulation=modulation,
        )

    @overload
    def forward(self, lq: Tensor, cond: Tensor | None = None, *, return_idr: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(
        self, lq: Tensor, cond: Tensor | None = None, *, return_idr: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, lq: Tensor, cond: Tensor | None = None, *, return_idr: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Super-resolve an LR image of unknown degradation.

        Args:
            lq: (N, num_in_ch, h, w) RGB in [0, 1], any size.
            cond: (N, den_in_ch, h, w) what DEN looks at: MLN's adapted feature map for the teacher; default `lq`.
            return_idr: also return the representation.

        Returns:
            sr (N, num_out_ch, upscale h, upscale w), not clipped; with `return_idr` the pair (sr, idr (N, 4 den_feat)).
        """
        idr = self.den(lq if cond is None else cond)
        sr = self.rdan(lq, idr)
        return (sr, idr) if return_idr else sr

    @staticmethod
    def hyper_parameters(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
        """Read the constructor's arguments off shapes and buffers of the weights.

        Raises:
            ValueError: not the weights of an MRDANet.
        """
        den_feat, den_in_ch = size(state_dict, "den.body.0.weight")[:2]
        num_feat, num_in_ch = size(state_dict, "rdan.head.weight")[:2]
        size(state_dict, "rdan.global_residual", 0)
        upscale, num_out_ch, direct = Upscaler.sizes(state_dict, "rdan.upscaler.", num_in_ch)
        dynamic, rdam = (f"rdan.blocks.0.rda1.{layer}.weight" in state_dict for layer in ("kernel.0", "modulation"))
        return {
            "num_in_ch": num_in_ch,
            "num_out_ch": num_out_ch,
            "num_feat": num_feat,
            "num_block": len({name.split(".")[2] for name in state_dict if name.startswith("rdan.blocks.")}),
            "upscale": upscale,
            "den_in_ch": den_in_ch,
            "den_feat": den_feat,
            "upsampler": "pixelshuffledirect" if direct else "pixelshuffle",
            "global_residual": bool(state_dict["rdan.global_residual"]),
            "modulation": "rdam" if rdam else "da" if dynamic else "da_vanilla",
        }

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Tensor]) -> MRDANet:
        """Build the network that these weights belong to, with them; it takes the tensors over without a copy.

        Raises:
            ValueError: not the weights of an MRDANet.
        """
        return build(cls, cls.hyper_parameters(state_dict), state_dict)
