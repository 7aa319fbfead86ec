"""The page to try it: what it computes and, in a browser, what it shows."""

from __future__ import annotations

import io
import math
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_arch.rdan_arch import modulation_maps
from mrda_data.degradation.classic import classic_degrade
from mrda_inference import web
from mrda_inference.known_kernels import known_kernels, nearest, reference_crops
from mrda_inference.tiling import centre
from mrda_utils.errors import UserError
from mrda_utils.resize import imresize
from mrda_utils.seeding import torch_generator

ROOT = Path(__file__).resolve().parents[2]


def network():
    """A toy whose output looks nothing like its input."""
    torch.manual_seed(0)
    return MRDANet(num_feat=8, num_block=2, den_feat=4).eval().requires_grad_(False)


def reference_photograph(width):
    """A bundled photograph as the known kernel of this width degrades it, uint8."""
    task = {"sigma_x": width, "sigma_y": width, "theta": 0.0, "noise_sigma_255": 0.0}
    lq = classic_degrade(reference_crops(4)[4:5], task, 4, 21, torch_generator(0, "any"))
    return (255 * lq[0]).round().byte().permute(1, 2, 0).numpy()


def test_before_is_bicubic_and_after_is_the_network(tmp_path):
    net, pixels = network(), reference_photograph(2.4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = web.examiner(net, torch.device("cpu"))(tmp_path / "a.png")
    lq = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    for image, expected in ((found.before, imresize(lq, 4)), (found.after, net(lq))):
        expected = (255 * expected[0].clamp(0, 1)).permute(1, 2, 0).numpy()
        assert np.abs(image.astype(float) - expected).max() <= 0.51
    expected = nearest(known_kernels(net.den, 4), net.den(lq))
    assert [near.known.name for near in found.neighbours] == [near.known.name for near in expected]
    assert len(found.neighbours) == 3


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_map_is_the_mean_of_all_rda_convs_also_in_tiles(tmp_path, monkeypatch, mode):
    net = network()
    Image.fromarray(reference_photograph(2.4)[:50]).convert(mode).save(tmp_path / "a.png")
    pixels = np.array(Image.open(tmp_path / "a.png").convert("RGB"))
    maps = modulation_maps(net, torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    examine = web.examiner(net, torch.device("cpu"))
    for tile in (None, 64):
        monkeypatch.setattr(web, "automatic_tile", lambda *_, tile=tile: tile)
        np.testing.assert_allclose(examine(tmp_path / "a.png").modulation, maps.mean(0), atol=1e-5)


def test_the_heat_map_has_the_photographs_size_and_is_brightest_where_the_value_is_largest():
    values = np.full((10, 12), 0.4)
    values[1:4, 8:11], values[6:9, 1:4] = 0.5, 0.3
    heat = web.heat_map(np.full((40, 48, 3), 128, np.uint8), values)
    assert heat.shape == (40, 48, 3)
    assert heat.dtype == np.uint8
    yellow, violet = (np.array([253, 231, 37]), np.array([68, 1, 84]))  # the ends of viridis
    for (row, column), end in (((10, 38), yellow), ((30, 10), violet)):
        assert np.abs(heat[row, column] - (web.MAP_SHARE * end + (1 - web.MAP_SHARE) * 128)).max() <= 1
    flat = web.heat_map(np.zeros((4, 4, 3), np.uint8), np.full((2, 2), 0.5))
    assert np.unique(flat.reshape(-1, 3), axis=0).shape == (1, 3)


@pytest.mark.parametrize(
    ("pixels", "longest", "part"),
    [
        (3600, 72, np.s_[:, :]),
        (2000, 72, np.s_[6:43, 9:62]),
        (3600, 30, np.s_[10:40, 21:51]),
        (3600, 60, np.s_[:, 6:66]),
    ],
)
def test_of_a_large_photograph_the_central_part_is_taken(tmp_path, monkeypatch, pixels, longest, part):
    monkeypatch.setattr(web, "known_kernels", lambda *_: [])
    monkeypatch.setattr(web, "MOST_PIXELS", pixels)
    monkeypatch.setattr(web, "LONGEST", longest)
    photograph = reference_photograph(2.4)[:50]
    Image.fromarray(photograph).save(tmp_path / "a.png")
    found = web.examiner(network(), torch.device("cpu"))(tmp_path / "a.png")
    lq = torch.from_numpy(photograph[part]).permute(2, 0, 1)[None] / 255
    assert np.abs(found.after - (255 * network()(lq)[0].clamp(0, 1)).permute(1, 2, 0).numpy()).max() <= 0.51
    assert found.before.shape == found.after.shape
    assert (found.modulation.shape, found.sides) == (photograph[part].shape[:2], (50, 72))


def test_a_phones_photograph_keeps_its_shape_and_the_page_names_both_sizes():
    for whole in ((3024, 4032), (4032, 3024), (9000, 12000)):
        rows, columns = centre(*whole, web.MOST_PIXELS, web.LONGEST)
        part = rows.stop - rows.start, columns.stop - columns.start
        assert 0.99 * web.MOST_PIXELS < math.prod(part) <= web.MOST_PIXELS == 524_288
        assert part[1] / part[0] == pytest.approx(whole[1] / whole[0], rel=0.01)
        assert abs(rows.start + rows.stop - whole[0]) <= 1
        assert abs(columns.start + columns.stop - whole[1]) <= 1
    note = "Only the central 836x627 of 4032x3024 pixels were taken; mrda-upscale takes whole photographs."
    assert web.part_note((627, 836), (3024, 4032)) == note
    assert web.part_note((627, 836), (627, 836)) == ""


def test_the_largest_part_fits_into_the_pages_pictures():
    rows, columns = centre(1, 1_000_000, web.MOST_PIXELS, web.LONGEST)
    heat = np.zeros(((rows.stop - rows.start) * 4, (columns.stop - columns.start) * 4, 3), np.uint8)
    Image.fromarray(heat).save(io.BytesIO(), "WEBP")


def test_a_network_without_maps_is_told_before_the_page_is_served(tmp_path):
    pytest.importorskip("gradio")
    net = MRDANet(num_feat=8, num_block=2, den_feat=4, modulation="da")
    save_file(net.state_dict(), tmp_path / "toy.safetensors")
    with pytest.raises(UserError, match=r"^modulation: da; the page shows the maps of rdam, take mrda-upscale"):
        web.serve(["--weights", str(tmp_path / "toy.safetensors"), "--device", "cpu"])


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"gradio is not installed; pip install"):
        web.serve(["--weights", "toy.safetensors"])


def test_a_port_that_is_taken_is_told_and_nothing_stays_behind(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    save_file(network().state_dict(), tmp_path / "toy.safetensors")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(web, "known_kernels", lambda *_: [])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "restored afterwards")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--host 127.0.0.1 --port {port}: cannot be listened on; choose another"):
            web.serve(["--weights", str(tmp_path / "toy.safetensors"), "--device", "cpu", "--port", str(port)])
    assert [path.name for path in tmp_path.iterdir()] == ["toy.safetensors"]


# -------------------------------------------------------------------------------------------------------- in a browser
@pytest.fixture
def address(tmp_path):
    """Of a page that a process of its own serves on a free port."""
    pytest.importorskip("gradio")
    save_file(network().state_dict(), tmp_path / "toy.safetensors")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mrda_inference.web", "--weights", "toy.safetensors", "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            line = process.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            yield line.split()[0]
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert not list(tmp_path.glob("mrda-web-*")), "uploads are left behind"


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def mean_colour(element, left, right):
    """Of a screenshot of an element, between two shares of its width; a quarter of its height in the middle."""
    image = np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB"), float)
    return part_mean(image, left, right)


def part_mean(image, left, right):
    height, width = image.shape[:2]
    rows, columns = slice(5 * height // 8, 7 * height // 8), slice(round(left * width), round(right * width))
    return image[rows, columns].mean((0, 1))


@pytest.mark.slow
def test_a_photograph_dropped_on_the_page(address, browser, tmp_path):
    actions = pytest.importorskip("selenium.webdriver").ActionChains(browser)
    host, port = re.fullmatch(r"http://([\d.]+):(\d+)/", address).groups()
    assert host == "127.0.0.1"
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", int(port)), 1):  # noqa: PT011
        pass  # what listens on every interface answers there too

    with urlopen(address) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' ")

    browser.set_window_size(1300, 950)
    browser.get(address)

    def find(selector):
        return browser.find_element("css selector", selector)

    def drop(path):
        find("input[type=file]").send_keys(str(path))

    pixels = reference_photograph(2.4)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    drop(tmp_path / "photo.png")
    wait_for(lambda: browser.find_elements("css selector", "#kernels figure"))
    lines = find("#kernels .kernels").text.splitlines()
    lq = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    for (known, angle), name, away in zip(
        nearest(known_kernels(network().den, 4), network().den(lq)), lines[::2], lines[1::2], strict=True
    ):
        assert (name, away) == (known.name, f"{angle:.2f}° away")
    assert re.match(r"0\.\d\d\n0\.\d\d\n", find("#legend .legend").text)

    for selector in ("#kernels img", "#modulation img", "#before-after img"):
        image = find(selector)
        wait_for(lambda image=image: image.get_property("complete") and image.get_property("naturalWidth"))
    before, after = ((255 * x[0].clamp(0, 1)).permute(1, 2, 0).numpy() for x in (imresize(lq, 4), network()(lq)))
    stage = find("#before-after img")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", stage)

    def shows(left, right, image):
        return np.abs(mean_colour(stage, left, right) - part_mean(image, left, right)).max() < 4

    assert np.abs(part_mean(before, 0.6, 0.7) - part_mean(after, 0.6, 0.7)).max() > 20  # they can be told apart
    wait_for(lambda: shows(0.3, 0.4, before) and shows(0.6, 0.7, after))
    actions.move_to_element(stage).click_and_hold().move_by_offset(round(0.3 * stage.size["width"]), 0).release()
    actions.perform()
    wait_for(lambda: shows(0.3, 0.4, before) and shows(0.6, 0.7, before) and shows(0.88, 0.95, after))

    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    assert all(name.startswith((address, "data:", "blob:")) for name in loaded)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]

    (tmp_path / "damaged.png").write_bytes((tmp_path / "photo.png").read_bytes()[:300])
    browser.get(address)
    drop(tmp_path / "damaged.png")
    shown = wait_for(lambda: find("[data-testid=toast-body]").text)
    assert "damaged.png: cannot be decoded; it is damaged or no image" in shown
    assert str(tmp_path) not in shown

    Image.new("RGB", (5000, 20)).save(tmp_path / "long.png")
    browser.get(address)
    drop(tmp_path / "long.png")
    wait_for(lambda: browser.find_elements("css selector", "#kernels figure"))
    assert find("#part").text.startswith("Only the central 4095x20 of 5000x20 pixels were taken; ")
