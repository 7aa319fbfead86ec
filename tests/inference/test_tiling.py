from __future__ import annotations

import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch

from mrda_arch import MRDANet, network_from_file
from mrda_data.images import to_tensor
from mrda_data.sources import BundledSource
from mrda_inference import network_functions, tiling, upscale
from mrda_inference.tiling import OVERLAP, idr_region, one_behind, shares, spans
from mrda_utils.shipped import shipped_weights

ROOT = Path(__file__).resolve().parents[2]
TOY = {"num_feat": 6, "num_block": 2, "den_feat": 4}
RADIUS = 1 + 2 * 4 + 1 + 3  # LR pixels that RDAN looks around one: head, blocks, body_tail; upscaler and bicubic base


@pytest.mark.parametrize("size", [1, 5, 31, 64, 65, 100, 129, 1000])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (64, 0), (33, 32), (512, 32), (96, 7)])
def test_intervals_cover_the_side_and_their_shares_add_up_to_one(size, tile, overlap):
    intervals = spans(size, tile, overlap)
    assert intervals[0][0] == 0
    assert intervals[-1][1] == size
    assert all(stop - start <= tile for start, stop in intervals)
    assert all(a[1] - b[0] == overlap for a, b in pairwise(intervals))
    total = torch.zeros(2 * size)
    for (start, stop), share in zip(intervals, shares(intervals, overlap, 2), strict=True):
        assert share.min() >= 0
        assert share.max() <= 1
        total[2 * start : 2 * stop] += share
    torch.testing.assert_close(total, torch.ones(2 * size))


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
def test_tiles_equal_the_whole_image_where_the_overlap_is_wide(upsampler):
    net = MRDANet(**TOY, upscale=2, upsampler=upsampler, global_residual=True).double()
    functions = net.den, net.rdan
    lq = torch.rand(1, 3, 130, 97).double()
    whole = upscale(lq, *functions, 2)
    assert torch.equal(whole, net(lq).detach())
    tiled = upscale(lq, *functions, 2, tile=80, overlap=4 * RADIUS)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-9)
    far_from_exact = upscale(lq, *functions, 2, tile=80, overlap=0)
    assert (far_from_exact - whole).abs().max() > 1e-4


def test_the_representation_is_computed_once_and_shared():
    seen = []

    def encode(lq):
        seen.append(lq.shape)
        return torch.tensor(0.25)

    out = upscale(torch.rand(1, 3, 50, 70), encode, lambda lq, idr: idr.expand_as(lq), 1, tile=20, overlap=4)
    assert seen == [(1, 3, 50, 70)]
    torch.testing.assert_close(out, torch.full((1, 3, 50, 70), 0.25))


def test_a_tile_is_added_to_the_image_while_the_next_one_is_computed(monkeypatch):
    """What is waited for, a GPU's results, is asked for one tile late, and all of it in the end."""
    story = []

    def fetched(tensor):
        story.append("computed")
        return lambda: story.append("added") or tensor

    monkeypatch.setattr(tiling, "fetched", fetched)
    out = upscale(torch.rand(1, 3, 40, 10), lambda lq: lq, lambda lq, idr: torch.ones_like(lq), 1, tile=20, overlap=4)
    assert story == ["computed", "computed", "added", "computed", "added", "added"]
    torch.testing.assert_close(out, torch.ones(1, 3, 40, 10))


def test_items_come_one_behind_and_none_is_lost():
    taken = []

    def items(count):
        for n in range(count):
            taken.append(n)
            yield n

    for count in range(4):
        assert list(one_behind(items(count))) == list(range(count))
    taken.clear()
    assert next(one_behind(items(3))) == 0
    assert taken == [0, 1]


def test_of_a_huge_image_the_centre_is_encoded(monkeypatch):
    monkeypatch.setattr(tiling, "IDR_PIXELS", 100)
    lq = torch.rand(1, 3, 40, 10)
    assert torch.equal(idr_region(lq), lq[..., 10:30, 2:7])
    assert idr_region(torch.rand(1, 3, 4000, 1)).shape == (1, 3, 632, 1)
    assert idr_region(torch.rand(1, 3, 10, 10)).shape == (1, 3, 10, 10)


def test_tiles_that_differ_pass_into_each_other_without_a_seam():
    numbers = iter(range(100))

    def restore(lq, idr):
        return torch.full_like(lq, next(numbers) % 2).repeat_interleave(4, -1).repeat_interleave(4, -2)

    out = upscale(torch.zeros(1, 3, 1, 200), lambda lq: lq, restore, 4, tile=72, overlap=16)
    assert out.max() == 1
    assert out.min() == 0
    # from 0 to 1 over half the overlap, 8 LR pixels
    assert out.diff(dim=-1).abs().max() <= 1 / (8 * 4) + 1e-6


@pytest.mark.slow
def test_tiles_of_the_shipped_student_show_no_seam():
    """As it ships, the overlap is narrower than four times what RDAN looks around a pixel."""
    net = network_from_file(shipped_weights("shipped:mrda_lite_x4_student"))
    lq = to_tensor(BundledSource("test").read(0)[50:250, 75:375])[None]
    functions = network_functions(net)
    whole = upscale(lq, *functions, 4)

    def jumps(image, dim):
        """Mean step from each row or column of pixels to the next."""
        return image.diff(dim=dim).abs().mean((0, 1, -3 - dim))

    tiled = upscale(lq, *functions, 4, tile=96)
    tiles = torch.zeros(whole.shape[-2:])  # that hold a pixel
    for (top, bottom), (left, right) in product(spans(200, 96, OVERLAP), spans(300, 96, OVERLAP)):
        tiles[4 * top : 4 * bottom, 4 * left : 4 * right] += 1
    error = (tiled - whole).abs()
    assert error.max() < 1 / 255  # a gray of 8 bits
    assert error[..., tiles == 1].max() < 1e-5
    for dim in (-2, -1):
        assert (jumps(tiled, dim) / jumps(whole, dim)).max() < 1.01

    cut = upscale(lq, *functions, 4, tile=96, overlap=0)  # where tiles only meet, a seam shows
    for dim in (-2, -1):
        edges = [4 * stop - 1 for _, stop in spans(lq.shape[dim], 96, 0)[:-1]]
        assert (jumps(cut, dim) / jumps(whole, dim))[edges].min() > 1.5


@pytest.mark.slow
def test_tiles_with_representations_of_their_own_lose_less_than_a_twentieth_of_a_decibel():
    """What programs get that cut images and know nothing of the representation; on the bundled photographs."""
    command = [sys.executable, "benchmarks/tiling.py"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    names, mean = ([cell.strip() for cell in line.strip("|").split("|")] for line in (printed[1], printed[-1]))
    losses = {name: float(value) for name, value in zip(names, mean, strict=True) if name.startswith(("loss", "own"))}
    assert len(losses) == 3
    assert max(losses.values()) < 0.05
    assert abs(losses["loss, one IDR"]) < 0.001


def test_a_tile_no_larger_than_the_overlap_is_refused():
    with pytest.raises(ValueError, match="tile: 32 pixels, it must be larger than the overlap, 32"):
        upscale(torch.zeros(1, 3, 4, 4), lambda lq: lq, lambda lq, idr: lq, 1, tile=32)


def test_bfloat16_keeps_the_bicubic_base_exact():
    net = MRDANet(**TOY, global_residual=True)
    for p in net.rdan.upscaler.parameters():
        torch.nn.init.zeros_(p)
    lq = torch.rand(1, 3, 20, 20)
    out = upscale(lq, *network_functions(net, "cpu", torch.bfloat16), 4)
    assert out.dtype == torch.float32
    assert torch.equal(out, net(lq).detach())
