"""The student for programs that load weights with spandrel (ComfyUI, chaiNNer ...).

    import mrda_arch.spandrel
    mrda_arch.spandrel.install()      # from here on spandrel.ModelLoader knows the files

See docs/spandrel.md.
"""

from __future__ import annotations

import math

from spandrel import (
    MAIN_REGISTRY,
    Architecture,
    ArchSupport,
    ImageModelDescriptor,
    StateDict,
    UnsupportedModelError,
)
from spandrel.util import KeyCondition, get_seq_len

from mrda_arch.spandrel_network import MRDA


class MRDAArch(Architecture[MRDA]):
    """Detects and loads the weights of a student; those of a teacher are refused."""

    def __init__(self) -> None:
        super().__init__(
            id="MRDA",
            detect=KeyCondition.has_all(
                "den.body.0.weight",
                "den.mlp.2.weight",
                "rdan.global_residual",
                "rdan.head.weight",
                "rdan.compress.0.weight",
                "rdan.blocks.0.rda1.modulation.weight",
                "rdan.upscaler.0.weight",
            ),
        )

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[MRDA]:
        """Build the network that the weights belong to.

        Raises:
            UnsupportedModelError: they are a teacher's, which sees the features of another network, not images.
        """
        den_feat, den_in_ch = state_dict["den.body.0.weight"].shape[:2]
        num_feat, num_in_ch = state_dict["rdan.head.weight"].shape[:2]
        if den_in_ch != num_in_ch:
            raise UnsupportedModelError("MRDA: weights of a teacher, which needs ground truth; take those of a student")
        convs = [state_dict[key] for i in (0, 2, 4) if (key := f"rdan.upscaler.{i}.weight") in state_dict]
        direct = len(convs) == 1
        num_out_ch = num_in_ch if direct else convs[-1].shape[0]
        pixels = convs[0].shape[0] // num_in_ch if direct else (convs[0].shape[0] // num_feat) ** (len(convs) - 1)
        num_block, upscale = get_seq_len(state_dict, "rdan.blocks"), math.isqrt(pixels)
        model = MRDA(
            num_in_ch=num_in_ch,
            num_out_ch=num_out_ch,
            num_feat=num_feat,
            num_block=num_block,
            upscale=upscale,
            den_feat=den_feat,
            direct=direct,
            global_residual=bool(state_dict["rdan.global_residual"]),
        )
        return ImageModelDescriptor(
            model,
            state_dict,
            architecture=self,
            purpose="SR",
            tags=[f"{num_feat}nf", f"{num_block}nb"],
            supports_half=True,
            supports_bfloat16=True,
            scale=upscale,
            input_channels=num_in_ch,
            output_channels=num_out_ch,
        )


def install(*, ignore_duplicates: bool = False) -> list[ArchSupport]:
    """Add the architecture to spandrel's MAIN_REGISTRY, as `spandrel_extra_arches.install` adds its own.

    Args:
        ignore_duplicates: keep an architecture of this name that is there already.

    Returns:
        What was added.

    Raises:
        DuplicateArchitectureError: there is one already.
    """
    support = ArchSupport.from_architecture(MRDAArch())
    return MAIN_REGISTRY.add(support, ignore_duplicates=ignore_duplicates)
