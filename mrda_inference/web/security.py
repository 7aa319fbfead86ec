"""Who may ask for what: the page's own visitors, and no other website in their browsers."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",  # nothing from other servers, and in no other page's frame
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether no other machine reaches this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_hosts(host: str, port: int) -> Callable[[str], bool]:
    """Whether a Host header names this server; a name that somebody made point here (DNS rebinding) does not.

    Args:
        host: what is listened on. Other machines may name one that listens on all addresses by any of its addresses
            (an address cannot be made to point elsewhere) or by its own name.
        port: of it.
    """
    own = socket.gethostname().lower()
    names = {*LOOPBACK, host.lower(), f"[{host.lower()}]", own, f"{own}.local"}
    is_any = host in ("0.0.0.0", "::", "")

    def is_known(header: str) -> bool:
        name, _, own_port = header.lower().rpartition(":") if not header.endswith("]") else (header.lower(), "", "")
        if not name:  # no port
            name, own_port = header.lower(), ""
        if own_port not in ("", str(port)):
            return False
        if name in names:
            return True
        try:
            return is_any and bool(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return False

    return is_known


class Guard:
    """ASGI middleware: refuses what does not come from the page itself, and adds headers to what is answered.

    Args:
        app: what it guards.
        is_known: whether a Host header names this server.
        auth: `user:password`, or None.
    """

    def __init__(self, app: Callable, is_known: Callable[[str], bool], auth: str | None = None) -> None:
        self.app, self.is_known, self.auth = app, is_known, auth

    async def __call__(self, scope: dict, receive: Callable, send: Callable[[dict], Awaitable[None]]) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        return await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.is_known(hosts[0]):
            return PlainTextResponse("the address in your browser is not one that this page has", 421)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        is_own = origin is None or (
            urlsplit(origin).scheme in ("http", "https") and urlsplit(origin).netloc == hosts[0]
        )
        is_visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if not is_own or (site not in ("same-origin", "none") and not is_visit):
            return PlainTextResponse("another website asked for this", 403)
        if self.auth is not None and not self._is_welcome(headers.get("authorization", "")):
            challenge = {"www-authenticate": 'Basic realm="mrda-web", charset="UTF-8"'}
            return PlainTextResponse("user and password, please", 401, challenge)
        return None

    def _is_welcome(self, header: str) -> bool:
        kind, _, text = header.partition(" ")
        try:
            given = base64.b64decode(text, validate=True) if kind.lower() == "basic" else b""
        except ValueError:
            given = b""
        return hmac.compare_digest(given, self.auth.encode())
