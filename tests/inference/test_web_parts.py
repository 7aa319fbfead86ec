"""The parts of the page: who may ask, the queue, words, views, and the program that serves it."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mrda_arch import MRDANet
from mrda_inference.command_line import upscale_files
from mrda_inference.web import main, parse, texts
from mrda_options import command_line
from mrda_utils import __version__
from mrda_utils.errors import OptionError, UserError
from mrda_utils.resize import imresize

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from mrda_inference.web import jobs, views
from mrda_inference.web.jobs import Job, JobQueue, QueueFullError
from mrda_inference.web.security import is_loopback, known_hosts
from mrda_inference.web.store import Photo, safe_name
from tests.inference.test_web import page, sent, served, upscaler  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------------------ who may ask
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://{own}"}, 201),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://{own}"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 421),
        ({"Host": "localhost:{port}"}, 201),
        ({"Host": "localhost:1"}, 421),
    ],
)
def test_another_website_cannot_send_photographs(page, headers, status):  # noqa: F811
    own = {key: value.format(own=f"127.0.0.1:{page.port}", port=page.port) for key, value in headers.items()}
    from tests.inference.test_web import photograph

    assert page.ask("POST", "/photos", photograph((9, 9)), own, name="a.png").status == status
    assert len(page.store) == int(status == 201)


def test_a_link_from_elsewhere_opens_the_page_but_shows_no_picture(page):  # noqa: F811
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert page.ask("GET", "/", headers={**elsewhere, "Sec-Fetch-Mode": "navigate"}).status == 200
    photo = sent(page)
    picture = page.ask("GET", f"/photos/{photo}/thumbnail", headers={**elsewhere, "Sec-Fetch-Mode": "no-cors"})
    assert picture.status == 403


def test_every_answer_forbids_other_servers_and_frames(page):  # noqa: F811
    for path in ("/", "/about", "/nowhere"):
        headers = page.ask("GET", path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("host", "header", "is_known"),
    [
        ("127.0.0.1", "127.0.0.1:7860", True),
        ("127.0.0.1", "[::1]:7860", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:7860", True),
        ("127.0.0.1", "192.168.1.5:7860", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", ":7860", False),
        ("0.0.0.0", "192.168.1.5:7860", True),
        ("0.0.0.0", "[fe80::1]:7860", True),
        ("0.0.0.0", "rebound.example:7860", False),
        ("0.0.0.0", "192.168.1.5.example:7860", False),
        ("192.168.1.5", "192.168.1.5:7860", True),
        ("192.168.1.5", "192.168.1.6:7860", False),
        ("photos.lan", "photos.lan:7860", True),
        ("::", "[2001:db8::1]:7860", True),
        ("2001:db8::1", "[2001:db8::1]:7860", True),
    ],
)
def test_hosts_are_those_that_it_listens_on(host, header, is_known):
    assert known_hosts(host, 7860)(header) is is_known
    assert known_hosts(host, 7860)(f"{socket.gethostname()}:7860")


def test_with_auth_nothing_is_shown_without_it(tmp_path):
    with served([], tmp_path, "me:pässword") as page:  # noqa: F811

        def status(credentials):
            encoded = base64.b64encode(credentials.encode()).decode()
            return page.ask("GET", "/about", headers={"Authorization": f"Basic {encoded}"}).status

        answer = page.ask("GET", "/")
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert (status("me:pässword"), status("me:wrong"), status("me"), status("")) == (200, 401, 401, 401)
        assert page.ask("GET", "/about", headers={"Authorization": "Basic ###"}).status == 401
        assert page.ask("GET", "/static/page.js").status == 401


# -------------------------------------------------------------------------------------------------------- the queue
@pytest.fixture
def queue():
    queue = JobQueue()
    yield queue
    queue.end()


@pytest.fixture
def photo(tmp_path):
    return Photo("id", "a.png", tmp_path, (100, 50))


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_places_are_honest_and_previews_go_first(queue, tmp_path):
    go_on, order = threading.Event(), []

    def work(name):
        return lambda job: (order.append(name), go_on.wait(20))

    photos = [Photo(str(i), "a.png", tmp_path, (100, 50)) for i in range(4)]
    first = queue.submit(Job(photos[0], "whole", work("first")))
    until(lambda: first.state == "working")
    later = [queue.submit(Job(photo, "whole", work(f"whole {i}"))) for i, photo in enumerate(photos[1:3])]
    texts_ = [queue.status(job)["text"] for job in later]
    assert texts_ == ["waiting: 1 before this one", "waiting: 2 before this one"]
    preview = queue.submit(Job(photos[3], "preview", work("preview")))
    assert queue.status(later[1])["text"] == "waiting: 3 before this one"
    go_on.set()
    until(lambda: later[1].state == "done")
    assert order == ["first", "preview", "whole 0", "whole 1"]
    assert preview.state == "done"


def test_the_time_until_it_begins_follows_from_what_took_how_long(queue, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(jobs, "monotonic", lambda: clock[0])

    def hundred_seconds(job):
        clock[0] += 100

    go_on = threading.Event()
    small, large = (Photo(str(i), "a.png", tmp_path, (100 * i, 100)) for i in (1, 3))
    done = queue.submit(Job(small, "whole", hundred_seconds))
    until(lambda: done.state == "done")
    working = queue.submit(Job(large, "whole", lambda job: go_on.wait(20)))
    until(lambda: working.state == "working")
    waiting = queue.submit(Job(small, "whole", lambda job: None))
    assert queue.status(waiting)["text"] == "waiting: 1 before this one, begins in about 5 min"
    clock[0] += 240
    assert queue.status(waiting)["text"] == "waiting: 1 before this one, begins in about 60 s"
    working.progress(11, 30)  # 12 are restored, in 240 s
    assert queue.status(working)["text"] == "tile 12 of 30, 6 min left"
    clock[0] += 300
    assert queue.status(working)["text"] == "tile 12 of 30, 60 s left"
    clock[0] += 300
    assert queue.status(working)["text"] == "tile 12 of 30, 1 s left"
    go_on.set()


def test_cancelled_is_cancelled_at_once_and_ends_at_the_next_tile(queue, photo):
    go_on, ended = threading.Event(), threading.Event()

    def work(job):
        go_on.wait(20)
        try:
            job.progress(1, 3)
        finally:
            ended.set()

    working, waiting = (queue.submit(Job(photo, "whole", work)) for _ in range(2))
    until(lambda: working.state == "working")
    queue.cancel(waiting)
    queue.cancel(working)
    assert [queue.status(job)["state"] for job in (working, waiting)] == ["cancelled", "cancelled"]
    go_on.set()
    assert ended.wait(20)
    until(lambda: working.state == "cancelled")
    assert queue.status(working)["error"] == ""


def test_a_new_preview_takes_the_place_of_the_old_one(queue, photo):
    go_on = threading.Event()
    queue.submit(Job(Photo("other", "b.png", photo.folder), "whole", lambda job: go_on.wait(20)))
    old, new = (queue.submit(Job(photo, "preview", lambda job: "seen")) for _ in range(2))
    assert old.state == "cancelled"
    go_on.set()
    until(lambda: new.state == "done")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("{folder}/source/a.png: damaged"), "a.png: damaged"),
        (
            UserError("{folder}/source/a.png: too large; choose a smaller --tile"),
            "a.png: too large; choose a smaller tile",
        ),
        (UserError("{folder}/of-job_1/a_x4.png: cannot be written"), "a_x4.png: cannot be written"),
        (UserError("{folder}/of-job_1: takes 9 GB, and here is no room"), "a.png: takes 9 GB, and here is no room"),
        (MemoryError(), "out of memory; take a smaller photograph"),
        (RuntimeError("can't allocate memory"), "out of memory; take a smaller photograph"),
        (
            KeyError("secret"),
            "this failed for a reason that is not the photograph's; the terminal of mrda-web says more",
        ),
    ],
)
def test_what_fails_is_told_and_the_next_one_is_worked_on(queue, photo, error, message, capsys):
    def work(job):
        raise type(error)(*(str(part).format(folder=photo.folder) for part in error.args))

    failed, fine = queue.submit(Job(photo, "whole", work)), queue.submit(Job(photo, "whole", lambda job: None))
    until(lambda: fine.state == "done")
    status = queue.status(failed)
    assert (status["state"], status["error"]) == ("failed", message)
    assert ("secret" in capsys.readouterr().err) is isinstance(error, KeyError)


def test_too_many_jobs_are_refused(queue, photo, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WAITING", 2)
    go_on = threading.Event()
    working = queue.submit(Job(photo, "whole", lambda job: go_on.wait(20)))
    until(lambda: working.state == "working")
    for _ in range(2):
        queue.submit(Job(photo, "whole", lambda job: None))
    with pytest.raises(QueueFullError):
        queue.submit(Job(photo, "whole", lambda job: None))
    go_on.set()


# ------------------------------------------------------------------------------------------------- words and names
@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (7.6, "8 s"), (43, "40 s"), (99, "100 s"), (170, "3 min"), (5000, "83 min"), (6000, "1.7 h")],
)
def test_a_time_is_as_precise_as_an_estimate(seconds, text):
    assert texts.duration(seconds) == text


def test_what_it_says_of_work():
    assert texts.working(0, 0, None) == "reading"
    assert texts.working(11, 96, 41) == "tile 12 of 96, 40 s left"
    assert texts.working(96, 96, 0) == "writing the file"
    assert texts.waiting(0, 3.0) == "waiting: next, begins in about 3 s"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("--quality 0: must be 1 to 100", "quality 0: must be 1 to 100"),
        (
            "--outscale excludes --width and --height; leave one out",
            "outscale excludes width and height; leave one out",
        ),
        ("skipped (--skip-existing), or --background", "skipped (skip-existing), or background"),
        ("IMG--1.png: cannot be decoded", "IMG--1.png: cannot be decoded"),
        ("IMG --tile.png: takes --tile", "IMG --tile.png: takes tile"),
        ("a -- b, --1 and --A", "a -- b, --1 and --A"),
    ],
)
def test_options_have_no_dashes_on_the_page_and_names_keep_theirs(message, text):
    assert texts.of_page(message) == text


def test_an_open_server_says_what_that_means():
    assert texts.listening("http://127.0.0.1:1/", "127.0.0.1", False, False) == [
        "http://127.0.0.1:1/  (Ctrl-C ends it)"
    ]
    _, meaning, advice = texts.listening("http://127.0.0.1:1/", "0.0.0.0", True, False)
    assert meaning.startswith("--host 0.0.0.0: everyone whose machine reaches this one can open the page")
    assert advice.startswith("--auth USER:PASSWORD ")
    assert "without encryption" in texts.listening("http://127.0.0.1:1/", "0.0.0.0", True, True)[2]
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "name")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IMG 0412.JPG", "IMG 0412.JPG"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.png", "a.png"),
        ("..", "photograph"),
        ("", "photograph"),
        (".hidden", "hidden"),
        ("a\x1b[31m\n.png", "a[31m.png"),
        ("ü" * 300 + ".jpeg", "ü" * 60 + ".jpeg"),
    ],
)
def test_names_from_outside_become_names_of_files(name, expected):
    assert safe_name(name) == expected


# -------------------------------------------------------------------------------------------------------------- views
def test_a_view_shows_the_same_rectangle_before_and_after():
    lq = cv2.blur(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8), (3, 3))
    tensor = torch.from_numpy(lq).permute(2, 0, 1)[None] / 255
    whole = np.rint(255 * imresize(tensor, 4)[0].clamp(0, 1).permute(1, 2, 0).numpy()).astype(np.uint8)
    box = views.Box.within({"x": "24", "y": "16", "w": "40", "h": "32"}, (80, 120))
    part = whole[16:48, 24:64]
    assert np.abs(views.before_view(lq, (80, 120), box).astype(int) - part).max() <= 1
    np.testing.assert_array_equal(views.after_view(whole[..., ::-1], box), part)
    small = views.Box.within({"x": "24", "y": "16", "w": "40", "h": "32", "most": "10"}, (80, 120))
    assert (
        views.after_view(whole[..., ::-1], small).shape == views.before_view(lq, (80, 120), small).shape == (8, 10, 3)
    )


def test_views_take_gray_alpha_and_16_bits():
    deep = np.full((8, 8, 1), 65535, np.uint16)
    box = views.Box.within({}, (8, 8))
    for pixels in (deep, deep.repeat(4, axis=2)):
        assert (views.after_view(pixels, box) == 255).all()
    assert views.before_view(deep, (8, 8), box).shape == (8, 8, 3)


@pytest.mark.parametrize("values", [{"x": "a"}, {"w": "0"}, {"x": "80"}, {"y": "-9", "h": "3"}])
def test_a_rectangle_that_is_none_is_refused(values):
    with pytest.raises(ValueError, match=r"is no whole number|nothing is there"):
        views.Box.within(values, (80, 80))


def test_the_heat_map_is_brightest_where_the_value_is_largest():
    values = np.full((10, 12), 0.4)
    values[1:4, 8:11], values[6:9, 1:4] = 0.5, 0.3
    heat = views.heat_map(np.full((40, 48, 3), 128, np.uint8), values)
    assert (heat.shape, heat.dtype) == ((40, 48, 3), np.uint8)
    yellow, violet = (np.array([253, 231, 37]), np.array([68, 1, 84]))  # the ends of viridis
    for (row, column), end in (((10, 38), yellow), ((30, 10), violet)):
        assert np.abs(heat[row, column] - (views.MAP_SHARE * end + (1 - views.MAP_SHARE) * 128)).max() <= 1
    flat = views.heat_map(np.zeros((4, 4, 3), np.uint8), np.full((2, 2), 0.5))
    assert np.unique(flat.reshape(-1, 3), axis=0).shape == (1, 3)


# -------------------------------------------------------------------------------------------------------- the program
def program(*arguments, **options):
    command = [sys.executable, "-m", "mrda_inference.web", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes, **options)


@pytest.mark.parametrize(
    ("signal_", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_it_speaks_at_once_serves_and_ends_in_order(tmp_path, signal_, code):
    save_file(MRDANet(num_feat=6, num_block=1, den_feat=4).state_dict(), tmp_path / "toy.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = program("--weights", "toy.safetensors", "--device", "cpu", "--port", str(port), cwd=tmp_path)
    try:
        assert process.stderr.readline() == f"mrda-web {__version__}: loading ...\n"
        address = process.stdout.readline().split()[0]
        assert address == f"http://127.0.0.1:{port}/"
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), 1):  # noqa: PT011
            pass  # what listens on every interface answers there too
        file = tmp_path / "a.png"
        Image.new("RGB", (9, 9)).save(file)
        with urlopen(Request(f"{address}photos?name=a.png", file.read_bytes(), method="POST")) as answer:
            assert answer.status == 201
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(f"{address}photos?name=a.png", b"x", {"Origin": "http://evil.example"}, method="POST"))
    finally:
        process.send_signal(signal_)
        assert process.wait(30) == code
    assert process.stderr.read() == ("stopped\n" if code else "")


def test_nothing_is_loaded_before_it_speaks():
    code = "import sys, mrda_inference.web; print({'torch', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("program", [parse, upscale_files, lambda argv: command_line._parse(argv, True)])
def test_every_program_tells_its_version(program, capsys):
    with pytest.raises(SystemExit) as end:
        program(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"mrda {__version__}\n")


def test_mistakes_end_in_one_line(tmp_path, capsys, monkeypatch):
    for auth in ("me", ":word", "me:"):
        with pytest.raises(OptionError, match="--auth: name a user and a password, with a colon between them"):
            parse(["--auth", auth])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit):
            main(["--port", str(port)])
    assert f"error: --host 127.0.0.1 --port {port}: cannot be listened on; choose another\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--port", "99999"])
    assert "--port 99999: cannot be listened on" in capsys.readouterr().err
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["--weights", str(tmp_path / "no.pth"), "--port", "0"])
    assert "no.pth" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_its_packages_it_says_what_to_install(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("mrda_inference.web.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit):
        main([])
    assert 'error: uvicorn is not installed; pip install ".[web]"\n' in capsys.readouterr().err
