"""What is said of a photograph: right, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mrda_inference.found import Finder, Found, words
from mrda_inference.known_degradations import KEYS, Known, known_degradations
from mrda_inference.upscaler import MODELS, student

NO, YES, UNSURE = (Found(is_there, 2.41) for is_there in (False, True, None))


def found_of_unseen(model, kinds):
    """(task, what is found) of each known degradation of each bundled photograph, its scene not learnt from."""
    net = student(MODELS[model].weights).requires_grad_(False)
    known = known_degradations(net.den, net.upscale, kinds)
    scenes = [0, 1, 2, 2, 4, 5, 6, 7]  # two are the left and right view of one
    for scene in sorted(set(scenes)):
        rest = [index for index, other in enumerate(scenes) if other != scene]
        finder = Finder([one._replace(idrs=one.idrs[rest]) for one in known])
        for one in known:
            yield one.task, finder.find(one.idrs[scene : scene + 1])


def test_the_classic_student_estimates_the_blur_of_photographs():
    """0.18 pixels off with the weights of today, and no blur is told from blur."""
    errors = []
    for task, found in found_of_unseen("blur", ["blur"]):
        assert list(found) == ["blur"]
        assert found["blur"].is_there in (None, "sigma" in task)
        errors += [abs(found["blur"].amount - task["sigma"])] if found["blur"].is_there else []
    assert len(errors) > 50
    assert np.mean(errors) < 0.25


@pytest.mark.parametrize("model", [model for model in MODELS if model != "blur"])
def test_what_is_said_by_a_network_for_photographs_is_right(model):
    said = {kind: [] for kind in KEYS}
    for task, found in found_of_unseen(model, list(KEYS)):
        for kind, one in found.items():
            if one.is_there is not None:
                said[kind].append(one.is_there == (KEYS[kind] in task))
    shares = {kind: np.mean(right) for kind, right in said.items()}
    assert min(shares.values()) > 0.9, shares  # one soft photograph is called blurred
    assert len(said["blur"]) > 60
    assert len(said["noise"]) > 25
    assert len(said["jpeg"]) > 200


def test_a_finder_learns_presence_and_amount_and_doubts_between():
    generator = torch.Generator().manual_seed(0)

    def known(width, quality):
        task = {"sigma": width} if width else {}
        idr = torch.tensor([width, quality / 20, 0.0]) + 0.05 * torch.randn(200, 3, generator=generator)
        return Known(task | ({"jpeg_quality": quality} if quality else {}), idr)

    finder = Finder([known(width, quality) for width in (0.0, 2.0, 3.0) for quality in (0.0, 30.0, 60.0)])
    found = finder.find(torch.tensor([[3.0, 0.0, 0.0]]))
    assert found["blur"].amount == pytest.approx(3, abs=0.4)
    assert (found["blur"].is_there, found["jpeg"].is_there) == (True, False)
    assert finder.find(torch.tensor([[0.0, 2.0, 0.0]]))["jpeg"].is_there
    assert finder.find(torch.tensor([[0.7, 0.7, 0.0]]))["blur"].is_there is None
    assert "noise" not in found


def test_noise_is_not_told_of_jpeg():
    def known(noise, quality):
        task = ({"noise_sigma_255": 10.0} if noise else {}) | ({"jpeg_quality": 30.0} if quality else {})
        return Known(task, torch.eye(2)[:1] * noise + torch.eye(2)[1:] * quality + 0.01 * torch.rand(200, 2))

    finder = Finder([known(a, b) for a in (0, 1) for b in (0, 1)])
    assert finder.find(torch.tensor([[2.0, 0.0]]))["noise"].is_there
    assert finder.find(torch.tensor([[2.0, 2.0]]))["noise"].is_there is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"blur": YES}, "blurred, about 2.4 pixels of the enlarged picture; not looked for: noise and JPEG artefacts"),
        ({"blur": NO}, "no strong blur; not looked for: noise and JPEG artefacts"),
        ({"blur": NO, "noise": NO, "jpeg": NO}, "looks clean: no strong blur, noise or JPEG artefacts"),
        ({"blur": UNSURE, "noise": YES, "jpeg": NO}, "noisy; no strong JPEG artefacts; not sure about blur"),
        (
            {"blur": NO, "noise": UNSURE, "jpeg": Found(True, 41.7)},
            "JPEG artefacts, about quality 40; no strong blur; not sure about noise",
        ),
        ({"blur": UNSURE, "noise": UNSURE, "jpeg": UNSURE}, "not sure about blur, noise and JPEG artefacts"),
    ],
)
def test_what_was_found_in_words(found, expected):
    assert words(found) == expected
