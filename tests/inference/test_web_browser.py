"""The page in a real browser, at the widths of a desktop and of phones."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("selenium")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

from mrda_arch import MRDANet
from mrda_inference.upscaler import open_upscaler
from mrda_inference.web.models import Model
from tests.inference.test_web import page, photograph, two_models, upscaler  # noqa: F401  (fixtures)

SIZE = (150, 100)


class Window:
    """The page in a browser, as its visitor sees it."""

    def __init__(self, browser, page, width):  # noqa: F811
        self.browser, self.page = browser, page
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 844 if width < 500 else 800, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get(f"http://127.0.0.1:{page.port}/")
        self.until(lambda: self.text("#about"))

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def is_shown(self, selector):
        return self.find(selector).is_displayed()

    def script(self, code, *arguments):
        return self.browser.execute_script(code, *arguments)

    def until(self, condition, seconds=30):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"waited in vain; {self.text('body')}"
            time.sleep(0.05)
        return found

    def choose(self, *paths):
        self.find("#files").send_keys("\n".join(map(str, paths)))

    def pixels(self, side, left, top):
        """Mean colour around a place of the stage, shares of its size, where `side` is shown."""
        image = np.asarray(Image.open(io.BytesIO(self.find("#view").screenshot_as_png)).convert("RGB"), float)
        y, x = round(top * image.shape[0]), round(left * image.shape[1])
        return image[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1))

    def has_no_errors(self):
        return not [entry for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def files(tmp_path):
    """Photographs and what is none: (name, path)."""
    for name, mode in (("a", "RGB"), ("b", "L"), ("c", "RGB")):
        (tmp_path / f"{name}.png").write_bytes(photograph(SIZE, mode=mode))
    (tmp_path / "bad.png").write_bytes(photograph(SIZE)[:300])
    return tmp_path


def test_from_a_photograph_to_its_file(page, browser, files):  # noqa: F811
    window = Window(browser, page, 1280)
    assert window.text("#drop") == "Drop photographs here\nor choose them"
    window.choose(files / "a.png")
    window.until(lambda: window.text("#found").startswith("Found: "))
    assert window.text("#title") == "a.png"
    assert window.text("#sizes") == "150 \u00d7 100 to 600 \u00d7 400 pixels"
    assert not window.is_shown("#save")
    assert not window.is_shown("#kernels")  # folded away
    window.find("#go").click()
    window.until(lambda: window.is_shown("#save"))
    assert window.text("#save").startswith("Save a_x4.png (")
    link = window.find("#save").get_attribute("href")
    job = link.split("/")[-2]
    result = page.ask("GET", f"/jobs/{job}/file").body
    assert Image.open(io.BytesIO(result)).size == (600, 400)

    # the stage shows bicubic to the left of the line and the result to the right of it
    shown = window.until(
        lambda: window.script("return document.querySelector('#after .overview').src.includes(arguments[0])", job)
    )
    assert shown
    after = np.array(Image.open(io.BytesIO(result)))
    before = np.array(Image.open(files / "a.png").resize((600, 400), Image.Resampling.BICUBIC))
    window.find("#full").click()
    window.until(lambda: window.text("#zoom") == "100 %")
    time.sleep(0.5)
    stage = window.find("#view").size
    left, top = (stage["width"] - 600) / 2, (stage["height"] - 400) / 2

    def colour_of(image, x, y):
        return image[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1))

    for x, image in ((150, before), (450, after)):
        place = (left + x) / stage["width"], (top + 200) / stage["height"]
        assert np.abs(window.pixels("any", *place) - colour_of(image, x, 200)).max() < 12
    line = window.find("#divider")
    ActionChains(browser).drag_and_drop_by_offset(line, 280, 0).perform()
    place = (left + 450) / stage["width"], (top + 200) / stage["height"]
    window.until(lambda: np.abs(window.pixels("any", *place) - colour_of(before, 450, 200)).max() < 12)

    # wheel zooms about the pointer, drag moves, Fit shows all again
    origin = ScrollOrigin.from_element(window.find("#view"))
    ActionChains(browser).scroll_from_origin(origin, 0, -300).perform()
    window.until(lambda: int(window.text("#zoom").split()[0]) > 150)
    corner = window.script("return document.querySelector('#before .overview').getBoundingClientRect().left")
    ActionChains(browser).move_to_element_with_offset(window.find("#view"), -300, 0).click_and_hold().move_by_offset(
        50, 0
    ).release().perform()
    moved = window.script("return document.querySelector('#before .overview').getBoundingClientRect().left")
    assert moved == pytest.approx(corner + 50, abs=2)
    window.find("#fit").click()

    # the expert's view, with a scale that says that it is stretched
    window.find("#expert summary").click()
    assert len(window.find("#kernels").find_elements("css selector", "img")) == 3
    low, high = float(window.text("#low")), float(window.text("#high"))
    assert 0 <= low <= high <= 1
    assert f"stretched over what occurs here, {low:.2f} to {high:.2f}" in window.text("#map-note")
    loaded = window.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    assert all(name.startswith((f"http://127.0.0.1:{page.port}/", "data:")) for name in loaded)
    assert window.has_no_errors()


def test_several_photographs_errors_and_another_place(page, browser, files):  # noqa: F811
    window = Window(browser, page, 1280)
    window.choose(files / "bad.png")
    window.until(lambda: window.is_shown("#error"))
    assert window.text("#error").startswith("Error: bad.png: cannot be decoded; it is damaged or no ")
    stage, error = window.find("#view").rect, window.find("#error").rect
    assert error["x"] >= stage["x"] + stage["width"]  # beside the picture, not on it

    window.choose(files / "a.png", files / "b.png")  # takes the place of the first without a click
    window.until(lambda: window.text("#found"))
    assert not window.is_shown("#error")
    names = [row.text.split("\n")[0] for row in window.find("#list").find_elements("css selector", "button")]
    assert names == ["a.png", "b.png"]
    region = window.find("#region").rect
    image = window.find("#thumbnail")
    ActionChains(browser).move_to_element_with_offset(image, 20 - image.size["width"] // 2, 0).click().perform()
    assert window.is_shown("#region")
    assert len(page.store) == 2
    window.find("#all").click()
    window.until(lambda: window.is_shown("#zip"))
    answer = page.ask("GET", "/" + window.find("#zip").get_attribute("href").split("/", 3)[3])
    assert answer.body[:2] == b"PK"
    assert region["width"] > 0

    # what the server has forgotten is sent again
    for photo in list(page.store._photos.values()):
        page._forget(photo)
    window.find("#go").click()
    window.until(lambda: len(page.store) == 1)
    window.until(lambda: window.is_shown("#save") and not window.is_shown("#work"))


def test_a_photograph_is_taken_for_a_blurred_one(page, browser, files):  # noqa: F811
    from selenium.webdriver.support.ui import Select

    window = Window(browser, page, 390)
    window.choose(files / "a.png")
    window.until(lambda: window.text("#found"))
    assert not window.is_shown("#strength-field")

    def job():
        return window.script("return document.querySelector('#after .overview')?.src.split('/').at(-3)")

    before = window.until(job)
    Select(window.find("[name=kind]")).select_by_value("blur")
    assert window.text("#strength") == "by 2 pixels of the result"
    first = window.until(lambda: job() != before and job())
    window.find("[name=strength]").send_keys("\ue014")  # arrow right
    assert window.text("#strength") == "by 2.2 pixels of the result"
    window.until(lambda: job() != first)
    asked = window.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert any("preview?" in name and "as=blur%3D2.2" in name for name in asked)
    window.find("#go").click()
    window.until(lambda: window.is_shown("#save"))
    asked = window.script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert any("upscale?" in name and "as=blur%3D2.2" in name for name in asked)
    Select(window.find("[name=kind]")).select_by_value("")
    assert not window.is_shown("#strength-field")
    assert window.has_no_errors()


def test_the_size_stays_when_another_model_is_chosen(two_models, browser, files):  # noqa: F811
    from selenium.webdriver.support.ui import Select

    save_file(MRDANet(num_feat=6, num_block=1, den_feat=4, upscale=2).state_dict(), files / "half.safetensors")
    two_models.models["half"] = Model("half", open_upscaler(str(files / "half.safetensors"), "cpu"))
    window = Window(browser, two_models, 1280)
    window.choose(files / "a.png")
    window.until(lambda: window.text("#found"))
    model, size = Select(window.find("[name=model]")), Select(window.find("[name=size]"))
    for chosen, other, kept, pixels in (
        ("2 times", "other", "2 times", "300 \u00d7 200"),
        ("3 times", "half", "3 times", "450 \u00d7 300"),
        ("a width", "toy", "a width", "600 \u00d7 400"),
        ("2 times", "half", "2 times", "300 \u00d7 200"),  # now the model's own, which is called so
    ):
        size.select_by_visible_text(chosen)
        model.select_by_value(other)
        assert size.first_selected_option.text == kept
        assert window.text("#sizes") == f"150 \u00d7 100 to {pixels} pixels"
        assert window.is_shown("#width-field") is (kept == "a width")
    assert window.has_no_errors()


def test_work_can_be_cancelled(page, browser, files):  # noqa: F811
    import threading

    go_on = threading.Event()
    model = page.models["toy"]
    restore = model.upscaler.restore

    def slow(lq, idr):
        go_on.wait(30)
        return restore(lq, idr)

    window = Window(browser, page, 1280)
    window.choose(files / "a.png")
    window.until(lambda: window.text("#found"))
    model.upscaler = model.upscaler._replace(restore=slow)
    window.find("#go").click()
    window.until(lambda: window.text("#status").startswith("tile 1 of "))
    window.find("#cancel").click()
    window.until(lambda: window.is_shown("#go"))
    go_on.set()
    assert not window.is_shown("#save")
    assert not window.is_shown("#error")


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_the_result_comes_first_and_nothing_scrolls_sideways(page, browser, files, width):  # noqa: F811
    window = Window(browser, page, width)

    def fits():
        return window.script("return document.documentElement.scrollWidth <= innerWidth")

    assert fits()
    window.choose(files / "a.png", files / "b.png")
    window.until(lambda: window.text("#found"))
    window.find("#go").click()
    window.until(lambda: window.is_shown("#save"))
    window.find("#expert summary").click()
    assert fits()
    places = [
        window.find(selector).rect["y"] for selector in ("#view", "#title", "#found", "#save", "#list", "#expert")
    ]
    assert places == sorted(places)
    assert window.find("#view").rect["y"] < 80
    assert all(
        window.find(selector).rect["width"] <= width for selector in ("#view", "#panel", "#options", "#map", "#list")
    )

    # two fingers
    fitted = int(window.text("#zoom").split()[0])
    window.script("scrollTo(0, 0)")
    view = window.find("#view").rect
    x, y = view["x"] + view["width"] / 2, view["y"] + 100
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 80)):
        points = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    window.until(lambda: int(window.text("#zoom").split()[0]) >= 3 * fitted)
    assert window.has_no_errors()
