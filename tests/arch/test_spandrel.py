"""Loaders that guess the architecture need no configuration."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from mrda_arch import MRDANet, network_from_file
from mrda_data.sources import BundledSource
from mrda_utils.shipped import shipped_weights

spandrel = pytest.importorskip("spandrel")


class MRDAArchitecture(spandrel.Architecture):
    def __init__(self):
        super().__init__(id="MRDA", detect=lambda state: "den.body.0.weight" in state and "rdan.head.weight" in state)

    def load(self, state_dict):
        net = MRDANet.from_state_dict(state_dict)
        known = net.hyper_parameters(state_dict)
        return spandrel.ImageModelDescriptor(
            net,
            state_dict,
            architecture=self,
            purpose="SR",
            tags=[],
            supports_half=True,
            supports_bfloat16=True,
            scale=known["upscale"],
            input_channels=known["num_in_ch"],
            output_channels=known["num_out_ch"],
        )


def loaded(path):
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(spandrel.ArchSupport.from_architecture(MRDAArchitecture()))
    return spandrel.ModelLoader(registry=registry).load_from_file(path)


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_spandrel_loads_a_safetensors_file_and_upscales(tmp_path, upscale):
    net = MRDANet(num_feat=6, num_block=2, den_feat=4, upscale=upscale, global_residual=True)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = loaded(tmp_path / "net.safetensors")
    lq = torch.rand(1, 3, 11, 8)
    assert model.scale == upscale
    with torch.no_grad():
        torch.testing.assert_close(model(lq), net(lq).clamp(0, 1), rtol=0, atol=1e-5)


def test_spandrel_loads_the_shipped_student():
    path = shipped_weights("shipped:mrda_lite_x4_student")
    model, net = loaded(path), network_from_file(path)
    lq = BundledSource("test").read(0)[100:124, 150:182]
    lq = torch.from_numpy(lq).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        sr = model(lq)
        torch.testing.assert_close(sr, net(lq).clamp(0, 1), rtol=0, atol=1e-5)
    assert sr.shape == (1, 3, 96, 128)
    assert sr.std() > 0.02
