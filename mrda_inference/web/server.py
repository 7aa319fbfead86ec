"""The server of the page."""

from __future__ import annotations

import argparse
import errno
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mrda_inference.backends import extra
from mrda_inference.known_degradations import KEYS
from mrda_inference.upscaler import MODELS, open_upscaler
from mrda_inference.web import FIRST_PORT, texts
from mrda_inference.web.security import is_loopback, known_hosts
from mrda_inference.web.store import Store
from mrda_utils import checkpoint
from mrda_utils.errors import OptionError
from mrda_utils.numerics import set_numerics
from mrda_utils.shipped import PREFIX, shipped_names, shipped_weights

SWEEP_SECONDS = 10
SETTINGS = {
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "lifespan": "off",
    "ws": "none",
    "limit_concurrency": 100,
    "timeout_graceful_shutdown": 2,
}
with extra("web"):
    import uvicorn

    from mrda_inference.web.app import Page
    from mrda_inference.web.models import Model


class Server(uvicorn.Server):
    """uvicorn's, ended by SIGTERM with exit code 0 and by Ctrl-C as other programs."""

    interrupted = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have both end it in order, so that uploads go."""

        def end(number: int, frame: object) -> None:
            self.interrupted = self.interrupted or number == signal.SIGINT
            self.should_exit = True

        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(args: argparse.Namespace) -> None:
    """Serve the page until it is interrupted.

    Args:
        args: of `mrda_inference.web.parse`.

    Raises:
        UserError: a mistake in the arguments or weights; a package is missing; the port is taken.
        KeyboardInterrupt: Ctrl-C.
    """
    with listening_socket(args.host, args.port) as sock:
        set_numerics()
        models, port = _models(args), sock.getsockname()[1]
        with tempfile.TemporaryDirectory(prefix="mrda-web-", ignore_cleanup_errors=True) as folder:
            page = Page(models, Store(Path(folder)), known_hosts(args.host, port), args.auth)
            server, ended = Server(uvicorn.Config(page.app, **SETTINGS)), threading.Event()
            threading.Thread(target=_sweep, args=(page, ended), daemon=True).start()
            name = f"[{args.host}]" if ":" in args.host else args.host
            url = f"http://{'127.0.0.1' if args.host in ('0.0.0.0', '::', '') else name}:{port}/"
            for line in texts.listening(url, args.host, not is_loopback(args.host), args.auth is not None):
                print(line, flush=True)  # noqa: T201
            try:
                server.run([sock])
            finally:
                ended.set()
                page.queue.end()
        if server.interrupted:
            raise KeyboardInterrupt


def _models(args: argparse.Namespace) -> list[Model]:
    """What the command line names, each once and called as its file is; by default the shipped ones."""
    names: dict[str, tuple[str, str]] = {}
    for weights in dict.fromkeys(args.weights):
        stem = Path(weights.removeprefix(PREFIX)).stem
        names[f"{stem} {len(names) + 1}" if stem in names else stem] = weights, ""
    if not names:
        names = {name: known for name, known in MODELS.items() if known.weights in shipped_names()}
    return [
        Model(name, open_upscaler(weights, args.device, backend=args.backend), purpose, told_kinds(weights))
        for name, (weights, purpose) in names.items()
    ]


def told_kinds(weights: str) -> tuple[str, ...]:
    """Kinds of degradation that a student was trained on, as far as they are known degradations."""
    path = shipped_weights(weights) if weights.startswith(PREFIX) else Path(weights)
    origin = checkpoint.load(path).get("mrda")
    degradation = str(origin.get("degradation")) if isinstance(origin, dict) else ""
    if "photo" in degradation:  # or a mixture with it
        return tuple(KEYS)
    return ("blur",) if degradation.startswith("type isotropic") else ()


def listening_socket(host: str, port: int | None) -> socket.socket:
    """A socket that listens; without a port on the first free one from FIRST_PORT on.

    Raises:
        OptionError: it cannot be listened on.
    """
    ports = range(FIRST_PORT, FIRST_PORT + 100) if port is None else [port]
    for number in ports:
        try:
            return socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE and number != ports[-1]:
                continue
            where = f"--host {host}" + ("" if port is None else f" --port {port}")
            raise OptionError(f"{where}: cannot be listened on; choose another") from error
    raise AssertionError


def _sweep(page: Page, ended: threading.Event) -> None:
    while not ended.wait(SWEEP_SECONDS):
        page.sweep()
