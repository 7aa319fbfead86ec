"""index.html of a report: one file with the report's numbers, and pictures under a slider."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from statistics import fmean

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mrda_data import BenchmarkDataset
from mrda_eval.page import Picture, Section, Viewer, picture_uri, write_page
from mrda_eval.tables import Table
from mrda_pipeline.benchmark_pipeline import test_pipeline as run_test
from tests.model.test_baselines import baseline

METRICS = {name: {"type": f"calculate_{name}", "crop_border": 4, "test_y_channel": True} for name in ("psnr", "ssim")}
WIDTHS = {"name": "Urban100", "type": "BenchmarkDataset", "protocol": "width", "dataroot_gt": "hr"}
OWN = {"name": "Own", "type": "LQDataset", "dataroot_lq": "hr"}


class Page(HTMLParser):
    """Tables as rows of cells, pictures by their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.links, self.published = {}, [], [], set()
        self.cell = self.rows = self.caption = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append([])
            self.is_published = attributes.get("class") == "published"
        if tag in ("th", "td", "caption"):
            self.cell = ""

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("th", "td"):
            self.rows[-1].append(self.cell)
            if self.is_published:
                self.published.add(self.rows[-1][0])
            self.cell = None
        if tag == "caption":
            self.caption, self.cell = self.cell, None
        if tag == "table":
            self.tables[self.caption] = self.rows


def decoded(uri):
    """Pixels of a data URI."""
    kind, _, data = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folder of a report on two photographs, under a published protocol and as own LR images."""
    root = tmp_path_factory.mktemp("page")
    (root / "hr").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a & b", "c"):
        small = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
        small.resize((52, 44), Image.Resampling.BICUBIC).save(root / f"hr/{name}.png")
    opt = {
        "name": "page",
        "model_type": "MRDATestModel",
        "scale": 4,
        "device": "cpu",
        "datasets": {"test": WIDTHS, "test_own": OWN},
        "baselines": {"Mine": baseline(root, "MLN")[0]},
        "val": {"metrics": METRICS},
        "panels": 3,
    }
    (root / "o.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
    torch.set_num_threads(1)
    run_test(root, ["-opt", str(root / "o.yml")])
    return root / "results/page"


@pytest.fixture
def page(results):
    return Page((results / "index.html").read_text())


@pytest.fixture
def rows(results):
    return list(csv.DictReader((results / "metrics.csv").open()))


def test_the_page_has_the_tables_of_the_report(results, page):
    lines = (results / "report.md").read_text().splitlines()
    report = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    for caption in ("Urban100, width, x4, psnr", "Urban100, width, x4, ssim", "Cost"):
        assert page.tables[caption][0] in report
        assert all(row in report for row in page.tables[caption])
    assert page.published == {"MRDA_T (published)", "MRDA_T, upscaler not fixed (published)"}


def test_the_page_has_a_row_a_kernel(page, rows):
    psnr, ssim = page.tables["psnr"], page.tables["ssim"]
    assert ssim[0] == ["kernel", "Bicubic", "Mine"]
    assert psnr[0] == [*ssim[0], "MRDA_T, upscaler not fixed (published)", "MRDA_T (published)"]
    assert [row[0] for row in psnr[1:]] == list(dict.fromkeys(row["kernel"] for row in rows))
    for metric, table, digits in (("psnr", psnr, 2), ("ssim", ssim, 4)):
        for kernel, *values in table[1:]:
            for method, value in zip(("Bicubic", "Mine"), values, strict=False):
                wanted = [
                    row for row in rows if (row["kernel"], row["method"], row["metric"]) == (kernel, method, metric)
                ]
                assert value == f"{fmean(float(row['value']) for row in wanted):.{digits}f}"
    assert [row[-1] for row in psnr[1:]] == ["26.48", "26.47", "26.25", "25.41"]  # Table VI


def test_the_page_needs_no_other_file(results, page):
    assert all(link.startswith(("data:image/webp;base64,", "#")) for link in page.links)
    text = (results / "index.html").read_text()
    assert not re.search(r"https?:|@import|url\(|<script [^>]*src|<link", text)


def test_a_viewer_has_lr_every_method_and_ground_truth(results, page, rows):
    layers = [image for image in page.images if "layer" in image["class"]]
    of_one = ["LR", "Bicubic", "Mine", "GT"]
    assert [layer["data-name"] for layer in layers] == [*of_one * 3, *of_one[:3] * 2]  # own images have no GT
    assert [layer["class"].split()[1:] for layer in layers[:4]] == [[], ["left"], ["right"], []]
    root = results.parents[1]
    dataset = BenchmarkDataset({**WIDTHS, "dataroot_gt": str(root / "hr"), "scale": 4, "kernel_size": 21})
    item = dataset[1]
    lq, gt = ((255 * item[key]).round().byte().permute(1, 2, 0).numpy() for key in ("lq", "gt"))
    assert np.array_equal(decoded(layers[0]["src"]), lq)
    assert np.abs(decoded(layers[3]["src"]).astype(float) - gt).mean() < 8  # lossy, at sharp edges of colour
    found = dict(part.split("\N{NO-BREAK SPACE}") for part in layers[2]["data-values"].split(", "))
    wanted = {
        row["metric"]: float(row["value"])
        for row in rows
        if (row["image"], row["kernel"], row["method"]) == (item["lq_path"], item["kernel"], "Mine")
    }
    assert found == {"psnr": f"{wanted['psnr']:.2f}", "ssim": f"{wanted['ssim']:.4f}"}
    kernels = [decoded(image["src"]) for image in page.images if image["class"] == "kernel"]
    assert [kernel.shape for kernel in kernels] == [(21, 21, 3)] * 3
    assert kernels[0].max() == 255


def solid(colour):
    return picture_uri(np.full((40, 80, 3), colour, np.uint8), lossless=True)


COSTS = Table("", "Cost", "", ["method", "s"], [["A", 1.0], ["B", None]], ("", ".1f"))


def test_names_are_text_not_markup(tmp_path):
    viewer = Viewer("<b>&.png", 'k"', 80, 40, None, [Picture("<i>", "", solid(0))], "<i>", "<i>")
    write_page("<u>", "&", [Section("s", [COSTS], [], [viewer])], COSTS, ["<script>"], tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert "&lt;b&gt;&amp;.png" in text
    assert not re.search(r"<b>|<i>|<u>|<p><script>", text)
    assert Page(text).tables["Cost"] == [["method", "s"], ["A", "1.0"], ["B", "-"]]
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


# -------------------------------------------------------------------------------------------------------- in a browser
def resize(browser, width, scheme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def pixel(element, share):
    """Colour of a screenshot of `element`, a quarter down, at this share of its width."""
    image = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
    return image.getpixel((round(share * image.width), image.height // 4))


@pytest.mark.slow
def test_the_slider_moves_the_border_between_the_chosen_pictures(browser, tmp_path):
    colours = {"LR": (0, 0, 255), "Bicubic": (0, 255, 0), "Student": (255, 0, 0), "GT": (255, 255, 255)}  # RGB
    pictures = [Picture(name, f"psnr {name}", solid(colour[::-1])) for name, colour in colours.items()]
    viewer = Viewer("a.png", "k", 80, 40, None, pictures, "Bicubic", "Student")
    write_page("t", "s", [Section("Set", [], [], [viewer])], COSTS, [], tmp_path / "index.html")
    resize(browser, 1000)
    browser.get((tmp_path / "index.html").as_uri())
    stage, slider = (browser.find_element("css selector", name) for name in (".stage", "input[type=range]"))

    def sides(share):
        return pixel(stage, share - 0.05), pixel(stage, share + 0.05)

    assert sides(0.5) == (colours["Bicubic"], colours["Student"])
    slider.send_keys("\ue010")  # End
    assert pixel(stage, 0.9) == colours["Bicubic"]
    slider.send_keys("\ue011", *["\ue00e"] * 2)  # Home, Page Up twice: a tenth of the range each
    assert sides(float(slider.get_attribute("value")) / 100) == (colours["Bicubic"], colours["Student"])
    offset = round(0.8 * stage.size["width"]) - stage.size["width"] // 2
    actions = pytest.importorskip("selenium.webdriver").ActionChains(browser)
    actions.move_to_element_with_offset(stage, offset, 0).click().perform()
    assert float(slider.get_attribute("value")) == pytest.approx(80, abs=1)
    assert sides(0.8) == (colours["Bicubic"], colours["Student"])
    left, right = browser.find_elements("css selector", "select")
    left.send_keys("LR")
    right.send_keys("GT")
    assert sides(0.8) == (colours["LR"], colours["GT"])
    assert [output.text for output in browser.find_elements("css selector", "output")] == ["psnr LR", "psnr GT"]
    left.send_keys("GT")  # the same on both sides
    assert sides(0.8) == (colours["GT"], colours["GT"])


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_numbers_and_pictures_of_the_report(browser, results, width):
    resize(browser, width)
    browser.get((results / "index.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    table = next(t for t in browser.find_elements("css selector", "table") if "x4, psnr" in t.text)
    cells = {row.text.split()[0]: row.text.split() for row in table.find_elements("css selector", "tbody tr")}
    means = {
        (mean["method"], mean["metric"]): mean["value"]
        for mean in json.loads((results / "metrics.json").read_text())["means"]
    }
    for method in ("Bicubic", "Mine"):
        assert cells[method][-1] == f"{means[method, 'psnr']:.2f}"
    for image in browser.find_elements("css selector", "img"):
        browser.execute_script("arguments[0].loading = 'eager'; return arguments[0].decode()", image)
        assert image.get_property("naturalWidth") > 0
    colours = []
    for scheme in ("light", "dark"):
        resize(browser, width, scheme)
        colours.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]
    assert not browser.get_log("browser")
