"""The page's server: whole photographs as mrda-upscale makes them, previews, and what is kept for how long."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
import zipfile
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_arch.rdan_arch import modulation_maps
from mrda_inference.chosen_idr import parse, with_degradation
from mrda_inference.image_writer import write_pixels
from mrda_inference.known_degradations import Known
from mrda_inference.photograph import OutputOptions, restore_file
from mrda_inference.upscaler import MODELS, open_upscaler
from mrda_utils.resize import imresize

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from mrda_inference.web import models, store  # noqa: E402  (what they need may be missing)
from mrda_inference.web.app import Page  # noqa: E402
from mrda_inference.web.models import Model  # noqa: E402
from mrda_inference.web.security import known_hosts  # noqa: E402
from mrda_inference.web.server import told_kinds  # noqa: E402
from mrda_inference.web.store import Store  # noqa: E402


@pytest.fixture
def upscaler(tmp_path):
    """A toy whose output looks nothing like its input; three tiles make the photograph of `photograph`."""
    net = MRDANet(num_feat=6, num_block=1, den_feat=4)
    save_file(net.state_dict(), tmp_path / "toy.safetensors")
    return open_upscaler(str(tmp_path / "toy.safetensors"), "cpu", tile=64, overlap=16)


@pytest.fixture
def page(tmp_path, upscaler, monkeypatch):
    """A page that is served in this process: `page.ask(...)`."""
    monkeypatch.setattr(models, "known_degradations", toy_kernels)
    (tmp_path / "store").mkdir()
    with served([Model("toy", upscaler)], tmp_path / "store") as page:
        yield page


def toy_kernels(encode, scale, kinds):
    return [Known({"sigma": float(i)} if i else {}, torch.rand(2, 16)) for i in (0, 2, 3)]


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode()


@contextmanager
def served(choice, folder, auth=None):
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    page = Page(choice, Store(folder), known_hosts("127.0.0.1", port), auth)
    server = uvicorn.Server(uvicorn.Config(page.app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()

    def ask(method, path, body=None, headers=(), **query):
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, f"{path}?{urlencode(query, doseq=True)}", body, dict(headers))
        return Answer(connection.getresponse())

    page.port, page.ask = port, ask
    try:
        yield page
    finally:
        server.should_exit = True
        thread.join(20)
        page.queue.end()


def photograph(size=(150, 40), format="PNG", mode="RGB", **values):
    """A file of coloured patches."""
    patches = np.random.default_rng(0).integers(0, 256, (*[-(-side // 10) for side in size[::-1]], len(mode)), np.uint8)
    pixels = patches.repeat(10, axis=0).repeat(10, axis=1)[: size[1], : size[0]]
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(file, format, **values)
    return file.getvalue()


def sent(page, name="IMG_0412.png", data=None):
    answer = page.ask("POST", "/photos", photograph() if data is None else data, name=name)
    assert answer.status == 201, answer.text
    return answer.json["id"]


def ended(page, job, seconds=60):
    """Status of a job once nothing goes on."""
    end = time.monotonic() + seconds
    while (status := page.ask("GET", f"/jobs/{job}").json)["state"] in ("waiting", "working"):
        assert time.monotonic() < end, status
        time.sleep(0.02)
    return status


def done(page, photo, **options):
    job = page.ask("POST", f"/photos/{photo}/upscale", **options).json["job"]
    status = ended(page, job)
    assert status["state"] == "done", status
    return job, status


# ------------------------------------------------------------------------------------------------ whole photographs
@pytest.mark.parametrize(
    ("options", "output", "name"),
    [
        ({}, OutputOptions(), "IMG_0412_x4.png"),
        ({"format": "jpg", "quality": "70"}, OutputOptions(quality=70), "IMG_0412_x4.jpg"),
        ({"format": "webp", "outscale": "2"}, OutputOptions(outscale=2), "IMG_0412_x2.webp"),
        ({"width": "333"}, OutputOptions(width=333), "IMG_0412_333.png"),
        ({"strip": "1", "height": "99"}, OutputOptions(strip=True, height=99), "IMG_0412_99.png"),
    ],
)
def test_the_result_is_the_file_that_the_command_line_writes(page, upscaler, tmp_path, options, output, name):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = photograph(format="JPEG", exif=exif)
    (tmp_path / "IMG_0412.jpg").write_bytes(data)
    restore_file(tmp_path / "IMG_0412.jpg", tmp_path / name, upscaler, output).write()
    job, status = done(page, sent(page, "IMG_0412.jpg", data), **options)
    answer = page.ask("GET", f"/jobs/{job}/file")
    assert answer.body == (tmp_path / name).read_bytes()
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    with Image.open(io.BytesIO(answer.body)) as image:
        assert (image.height, image.width) == (status["height"], status["width"])
        assert image.getexif().get(0x010F) == (None if output.strip else "a camera")
    assert (status["name"], status["bytes"], status["share"]) == (name, len(answer.body), 1.0)


def test_a_photograph_is_taken_for_what_the_visitor_chooses(page, tmp_path, upscaler):
    encode = upscaler.encode
    upscaler = upscaler._replace(encode=lambda lq: 100 * encode(lq), tile=None)  # so that the representation shows
    page.models["toy"].upscaler = upscaler
    (tmp_path / "a.png").write_bytes(photograph())
    chosen = with_degradation(upscaler, parse("blur=2.4"))
    restore_file(tmp_path / "a.png", tmp_path / "b.png", chosen).write()
    photo = sent(page)
    results = [page.ask("GET", f"/jobs/{done(page, photo, **how)[0]}/file").body for how in ({}, {"as": "blur=2.4"})]
    assert results[1] == (tmp_path / "b.png").read_bytes() != results[0]

    previews, words = [], []
    for how in ({}, {"as": "blur=2.4"}):
        job = page.ask("POST", f"/photos/{photo}/preview", **how).json["job"]
        words.append(ended(page, job)["found"])
        previews.append(np.asarray(Image.open(io.BytesIO(page.ask("GET", f"/jobs/{job}/view/after").body))).astype(int))
    assert words[0] == words[1]
    whole = np.asarray(Image.open(tmp_path / "b.png"))
    assert np.abs(previews[1] - whole).max() <= 1
    assert (previews[0] != previews[1]).any()

    for kind in ("upscale", "preview"):
        answer = page.ask("POST", f"/photos/{photo}/{kind}", **{"as": "blur=9"})
        assert (answer.status, answer.text) == (422, "as blur=9: blur takes a number from 0.2 to 4")
    assert page.ask("GET", "/about").json["ranges"]["blur"] == [0.2, 4.0]


def test_gray_16_bits_and_alpha_go_through(page, tmp_path, upscaler):
    pixels = np.random.default_rng(0).integers(0, 2**16, (12, 9), dtype=np.uint16)
    deep = io.BytesIO()
    Image.fromarray(pixels).save(deep, "PNG")
    for data, mode in ((photograph((9, 12), mode="RGBA"), "RGBA"), (deep.getvalue(), "I;16")):
        job, _ = done(page, sent(page, data=data))
        (tmp_path / "a.png").write_bytes(data)
        restore_file(tmp_path / "a.png", tmp_path / "b.png", upscaler).write()
        answer = page.ask("GET", f"/jobs/{job}/file")
        assert answer.body == (tmp_path / "b.png").read_bytes()
        assert Image.open(io.BytesIO(answer.body)).mode == mode
        assert page.ask("GET", f"/jobs/{job}/view/after").status == 200


def test_a_background_is_laid_behind_transparency(page, tmp_path, upscaler):
    (tmp_path / "a.png").write_bytes(photograph((20, 12), mode="RGBA"))
    restore_file(tmp_path / "a.png", tmp_path / "b.jpg", upscaler, OutputOptions(background=(255, 0, 16))).write()
    photo = sent(page, data=(tmp_path / "a.png").read_bytes())
    job, _ = done(page, photo, format="jpg", background="#ff0010")
    assert page.ask("GET", f"/jobs/{job}/file").body == (tmp_path / "b.jpg").read_bytes()
    assert page.ask("POST", f"/photos/{photo}/upscale", background="no colour").status == 422


@pytest.fixture
def two_models(page, tmp_path):
    """The page with a second network, `other`."""
    save_file(MRDANet(num_feat=6, num_block=1, den_feat=4).state_dict(), tmp_path / "other.safetensors")
    page.models["other"] = Model("other", open_upscaler(str(tmp_path / "other.safetensors"), "cpu"))
    return page


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"model": "other"}), ({"format": "jpg"}, {"format": "jpg", "quality": "5"})],
)
def test_each_result_of_a_photograph_is_kept(two_models, first, second):
    page, files = two_models, {}
    photo = sent(page)
    for options in (first, second):
        job, status = done(page, photo, **options)
        files[job] = status["name"], page.ask("GET", f"/jobs/{job}/file").body
    (one, before), (other, after) = files.values()
    assert one == other
    assert before != after
    assert [page.ask("GET", f"/jobs/{job}/file").body for job in files] == [before, after]


def test_a_job_that_is_cancelled_while_it_writes_leaves_nothing(two_models, tmp_path, monkeypatch):
    page, writing, go_on = two_models, threading.Event(), threading.Event()
    photo = sent(page)
    first, _ = done(page, photo)
    file = page.ask("GET", f"/jobs/{first}/file").body
    files = set((tmp_path / "store" / photo).rglob("*"))

    def slow_write(*arguments):
        writing.set()
        assert go_on.wait(30)
        return write_pixels(*arguments)

    monkeypatch.setattr("mrda_inference.photograph.write_pixels", slow_write)
    second = page.ask("POST", f"/photos/{photo}/upscale", model="other").json["job"]
    assert writing.wait(30)
    page.ask("DELETE", f"/jobs/{second}")
    go_on.set()
    done(page, sent(page, data=photograph((9, 9))))  # by then the other is over
    assert page.ask("GET", f"/jobs/{first}/file").body == file
    assert set((tmp_path / "store" / photo).rglob("*")) == files
    assert page.ask("GET", f"/jobs/{second}").json["state"] == "cancelled"
    for path in ("file", "view/after"):
        assert page.ask("GET", f"/jobs/{second}/{path}").status == 404


def test_who_hears_that_a_job_is_done_hears_what_came_of_it(page, monkeypatch):
    go_on, status = threading.Event(), page.queue.status

    def slow_write(*arguments):
        assert go_on.wait(30)
        return write_pixels(*arguments)

    def late_status(job):
        go_on.set()
        while job.state in ("waiting", "working"):
            time.sleep(0.01)
        return status(job)

    monkeypatch.setattr("mrda_inference.photograph.write_pixels", slow_write)
    job = page.ask("POST", f"/photos/{sent(page)}/upscale").json["job"]
    monkeypatch.setattr(page.queue, "status", late_status)
    found = page.ask("GET", f"/jobs/{job}").json
    assert (found["state"], found["name"]) == ("done", "IMG_0412_x4.png")


def test_progress_names_tiles_and_time(page, monkeypatch):
    seen, go_on = [], threading.Event()
    model = page.models["toy"]

    def slow(lq, idr):
        assert go_on.wait(20)
        go_on.clear()
        return real(lq, idr)

    real, model.upscaler = model.upscaler.restore, model.upscaler._replace(restore=slow)
    job = page.ask("POST", f"/photos/{sent(page)}/upscale").json["job"]
    while (status := page.ask("GET", f"/jobs/{job}").json)["state"] != "done":
        if status["text"] not in seen:
            seen.append(status["text"])
        go_on.set()
        time.sleep(0.05)
    tiles = [text for text in seen if text.startswith("tile ")]
    assert tiles[0] == "tile 1 of 3"
    assert any(text.startswith("tile 2 of 3, ") and text.endswith(" left") for text in tiles)


def test_a_choice_that_cannot_be_is_told(page):
    photo = sent(page)
    for options, message in [
        ({"format": "exe"}, "format exe: choose png, jpg, webp"),
        ({"format": "jpg", "quality": "0"}, "quality 0: must be 1 to 100"),
        ({"outscale": "99"}, "outscale 99.0: must be above 0 and at most 64"),
        ({"model": "../etc"}, "model ../etc: choose toy"),
        ({"width": "wide"}, "width: 'wide' is no whole number"),
        ({"format": "jpg", "quality": "8.5"}, "quality: '8.5' is no whole number"),
        ({"outscale": "abc"}, "outscale: 'abc' is no number"),
        ({"background": "sky"}, "background: 'sky' is no colour; white, black, #ffeedd ..."),
    ]:
        answer = page.ask("POST", f"/photos/{photo}/upscale", **options)
        assert answer.status in (400, 422)
        assert answer.text == message
    assert page.ask("POST", f"/photos/{photo}/preview", x="left").text == "x: 'left' is no number"
    assert page.ask("GET", f"/photos/{photo}/thumbnail", most="all").text == "most: 'all' is no whole number"
    status = ended(
        page, page.ask("POST", f"/photos/{sent(page, data=photograph(mode='RGBA'))}/upscale", format="jpg").json["job"]
    )
    assert (status["state"], status["error"]) == (
        "failed",
        "IMG_0412_x4.jpg: .jpg holds no alpha; choose png or webp, or background",
    )


@pytest.mark.parametrize("data", [b"", b"no image", photograph()[:200]])
@pytest.mark.parametrize("name", ["bad.png", "IMG--1.png", "--tile.png", "IMG --tile.png"])
def test_what_is_no_photograph_is_refused_and_leaves_nothing(page, data, name, tmp_path):
    answer = page.ask("POST", "/photos", data, name=f"../../etc/{name}")
    assert answer.status == 422
    assert answer.text.startswith(f"{name}: ")
    assert str(tmp_path) not in answer.text
    assert not list((tmp_path / "store").iterdir())


def test_several_results_come_as_a_zip(page):
    jobs = [done(page, sent(page, name, photograph((9, 9))))[0] for name in ("a.png", "a.png", "b.png")]
    answer = page.ask("GET", "/zip", job=[*jobs, "no such job"])
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a_x4.png", "a_x4-2.png", "b_x4.png"]
        assert archive.read("b_x4.png") == page.ask("GET", f"/jobs/{jobs[2]}/file").body
    assert page.ask("GET", "/zip").status == 404


# --------------------------------------------------------------------------------------------------------- previews
def test_a_preview_is_the_same_part_of_the_whole_result(page, upscaler, monkeypatch):
    monkeypatch.setattr(models, "PREVIEW_SIDE", 32)
    photo = sent(page, data=photograph((100, 70)))
    job = page.ask("POST", f"/photos/{photo}/preview", x="0.8", y="0.5").json["job"]
    status = ended(page, job)
    left, top, width, height = status["region"]
    assert (left, top, width, height) == (64, 19, 32, 32)
    shown = {
        side: np.array(Image.open(io.BytesIO(page.ask("GET", f"/jobs/{job}/view/{side}").body)))
        for side in ("before", "after")
    }
    whole = Image.open(io.BytesIO(page.ask("GET", f"/jobs/{done(page, photo)[0]}/file").body))
    part = np.array(whole)[4 * top : 4 * (top + height), 4 * left : 4 * (left + width)]
    assert np.abs(shown["after"].astype(int) - part).max() <= 1
    lq = torch.from_numpy(np.array(Image.open(io.BytesIO(photograph((100, 70)))))).permute(2, 0, 1)[None] / 255
    before = (255 * imresize(lq, 4)[0].clamp(0, 1)).permute(1, 2, 0).numpy()
    before = before[4 * top : 4 * (top + height), 4 * left : 4 * (left + width)]
    assert np.abs(shown["before"] - before).max() <= 0.51


def test_what_was_found_is_said_in_words_and_for_experts(page, upscaler):
    job = page.ask("POST", f"/photos/{sent(page)}/preview").json["job"]
    status = ended(page, job)
    assert status["found"].startswith(("blurred, about ", "no strong blur; ", "not sure about blur; "))
    assert status["found"].endswith("; not looked for: noise and JPEG artefacts")
    assert len(status["kernels"]) == 3
    lq = torch.from_numpy(np.array(Image.open(io.BytesIO(photograph())))).permute(2, 0, 1)[None] / 255
    maps = modulation_maps(upscaler.net, lq).mean(0)
    assert status["map"]["low"] == pytest.approx(float(maps.min()), abs=2e-3)
    assert status["map"]["high"] == pytest.approx(float(maps.max()), abs=2e-3)
    heat = Image.open(io.BytesIO(base64.b64decode(status["map"]["picture"].partition(",")[2])))
    assert heat.size == (600, 160)


def test_of_a_network_of_unknown_training_nothing_is_told(page, upscaler):
    page.models["toy"] = Model("toy", upscaler, "any photograph", kinds=())
    status = ended(page, page.ask("POST", f"/photos/{sent(page)}/preview").json["job"])
    assert (status["found"], status["kernels"]) == ("", [])
    assert page.ask("GET", "/about").json["models"] == [{"name": "toy", "scale": 4, "purpose": "any photograph"}]


def test_what_a_network_was_trained_on_is_read_off_its_file(tmp_path):
    told = {name: told_kinds(model.weights) for name, model in MODELS.items()}
    assert told == {name: ("blur",) if name == "blur" else ("blur", "noise", "jpeg") for name in MODELS}
    file, params = tmp_path / "own.pth", MRDANet(num_feat=6, num_block=1, den_feat=4).state_dict()
    for origin, kinds in (
        ({"degradation": "type photo, blur_prob 0.5"}, ("blur", "noise", "jpeg")),
        ({"degradation": "type anisotropic, sigma_x [0.5, 4]"}, ()),
        ({}, ()),
    ):
        torch.save({"params": params, "mrda": origin}, file)
        assert told_kinds(str(file)) == kinds
    torch.save({"params": params}, file)
    assert told_kinds(str(file)) == ()


def test_a_network_without_maps_has_a_page_without_map(page, tmp_path):
    save_file(MRDANet(num_feat=6, num_block=1, den_feat=4, modulation="da").state_dict(), tmp_path / "da.safetensors")
    page.models["toy"] = Model("toy", open_upscaler(str(tmp_path / "da.safetensors"), "cpu"))
    status = ended(page, page.ask("POST", f"/photos/{sent(page)}/preview").json["job"])
    assert status["state"] == "done"
    assert "map" not in status


# -------------------------------------------------------------------------------------------------- room and time
def test_uploads_take_no_more_room_than_they_may(page, monkeypatch):
    data = photograph()
    monkeypatch.setattr(store, "MOST_BYTES", 2 * len(data) + 100)
    for _ in range(2):
        sent(page)
    answer = page.ask("POST", "/photos", data, name="c.png")
    assert (answer.status, answer.text) == (
        503,
        "there is no room for more photographs at present; try again in some minutes",
    )
    monkeypatch.setattr("mrda_inference.web.app.MOST_UPLOAD", 100)
    assert page.ask("POST", "/photos", data, name="c.png").status == 413
    monkeypatch.setattr(store, "MOST_PHOTOS", 2)
    monkeypatch.setattr(store, "MOST_BYTES", 2**30)
    assert page.ask("POST", "/photos", b"x", name="c.png").status == 503


def test_a_length_that_is_not_given_or_not_true_is_refused(page, tmp_path):
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        head = f"POST /photos?name=a.png HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 411 ")
    with socket.create_connection(("127.0.0.1", page.port)) as connection:  # and goes away half-way
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
    end = time.monotonic() + 10
    while list((tmp_path / "store").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_photograph_goes_when_its_result_was_fetched_or_nobody_uses_it(page, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(store, "monotonic", lambda: clock[0])
    (tmp_path / "store/other").mkdir()  # what is not of this page stays
    fetched, unused, used = (sent(page, data=photograph((9, 9))) for _ in range(3))
    job, _ = done(page, fetched)
    assert page.ask("GET", f"/jobs/{job}/file").status == 200
    clock[0] = 50
    page.sweep()
    assert page.ask("GET", f"/jobs/{job}/file").status == 200  # again, while it is there
    clock[0] = 111
    page.sweep()
    assert page.ask("GET", f"/jobs/{job}/file").status == page.ask("GET", f"/photos/{fetched}/thumbnail").status == 404
    clock[0] = 599
    page.ask("GET", f"/photos/{used}/thumbnail")
    clock[0] = 601
    page.sweep()
    assert page.ask("GET", f"/photos/{unused}/thumbnail").status == 404
    assert page.ask("GET", f"/photos/{used}/thumbnail").status == 200
    assert {path.name for path in (tmp_path / "store").iterdir()} == {used, "other"}


def test_a_photograph_that_is_worked_on_stays_and_work_needs_room(page, monkeypatch):
    clock, begun, go_on = [0.0], threading.Event(), threading.Event()
    monkeypatch.setattr(store, "monotonic", lambda: clock[0])
    model = page.models["toy"]
    restore = model.upscaler.restore

    def slow_restore(lq, idr):
        begun.set()
        assert go_on.wait(30)
        return restore(lq, idr)

    model.upscaler = model.upscaler._replace(restore=slow_restore)
    photos = [sent(page) for _ in range(2)]
    working, waiting = (page.ask("POST", f"/photos/{photo}/upscale").json["job"] for photo in photos)
    clock[0] = 10_000
    page.sweep()
    assert len(page.store) == 2
    assert begun.wait(30)  # room was found for the first
    monkeypatch.setattr(store, "MOST_BYTES", 10)  # as if its result had filled it
    go_on.set()
    assert ended(page, working)["state"] == "done"
    status = ended(page, waiting)
    assert status["state"] == "failed"
    assert status["error"].startswith("there is no room for more photographs at present")


def test_no_request_names_a_folder_to_delete(page, tmp_path):
    (tmp_path / "store/inner").mkdir()
    for name in ("inner", "..%2F..", "%2e%2e", ".", f"{'x' * 5000}"):
        assert page.ask("DELETE", f"/photos/{name}").status in (404, 405)
    assert (tmp_path / "store/inner").is_dir()
    photo = sent(page)
    assert page.ask("DELETE", f"/photos/{photo}").status == 204
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["inner"]


def test_static_files_are_those_of_the_page_alone(page):
    assert page.ask("GET", "/").status == page.ask("GET", "/static/page.js").status == 200
    for name in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd"):
        assert page.ask("GET", f"/static/{name}").status == 404
