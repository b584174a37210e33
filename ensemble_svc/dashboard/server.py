"""The server of the page: three addresses to read, none to write.

It answers only those who name it as it was named at its start: a page from elsewhere whose name was made to point
here (DNS rebinding) is refused, and what it is served may load nothing from anywhere.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
from base64 import b64encode
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ensemble_svc.dashboard.shelf import Shelf
from ensemble_svc.errors import StoreError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
TIMEOUT_S = 30.0
"""How long a connection may say nothing."""


class Server(ThreadingHTTPServer):
    """Shows a shelf at ``host:port``; port 0 takes any that is free.

    Raises:
        StoreError: the address is taken or not this machine's.
    """

    daemon_threads = True

    def __init__(self, shelf: Shelf, host: str = "127.0.0.1", port: int = 8266) -> None:
        self.shelf, self.names = shelf, _names(host)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as fault:
            raise StoreError(
                f"no page can be served at {host}:{port}: {fault}; give another --port"
            ) from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing of a client that hung up; of anything else what the base tells."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names(host: str) -> frozenset[str]:
    """The names under which the page may be asked for, in small letters."""
    own = () if is_loopback(host) else (socket.gethostname(), socket.getfqdn())
    return LOOPBACK_NAMES | {name.lower() for name in (host, *own)}


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    timeout = TIMEOUT_S
    server_version, sys_version = "ensemble-svc", ""

    def do_GET(self) -> None:
        """The page, the list of runs, or one run."""
        if not self._is_asked_by_name():
            self._send(403, b"this page answers to its own name only\n", "text/plain")
            return
        path, _, query = self.path.partition("?")
        match path:
            case "/":
                self._send(200, page()[0], "text/html; charset=utf-8")
            case "/api/runs":
                self._json(self.server.shelf.listed())
            case "/api/run":
                name = parse_qs(query).get("name", [""])[0]
                self._json(self.server.shelf.shown(name))
            case _:
                self._send(404, b"there is nothing here\n", "text/plain")

    def log_message(self, *args: Any) -> None:
        """Nothing: a page that asks every second would fill the terminal."""

    def _is_asked_by_name(self) -> bool:
        """At any port: that of a tunnel to here is not the server's own."""
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            return False
        return name in self.server.names or self._is_own(name)

    def _is_own(self, name: str) -> bool:
        """Whether it is the very address, as a number, at which this connection came in: no name was resolved."""
        try:
            return ipaddress.ip_address(name) == ipaddress.ip_address(self.connection.getsockname()[0])
        except ValueError:
            return False

    def _json(self, value: Any) -> None:
        if value is None:
            self._send(404, b'{"error": "no such run"}', "application/json")
        else:
            self._send(200, json.dumps(value, allow_nan=False).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": page()[1],
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@cache
def page() -> tuple[bytes, str]:
    """The page with its style and its script in it, and the policy that allows these two alone."""
    folder = files("ensemble_svc.dashboard") / "page"
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    html = (folder / "page.html").read_text("utf-8").replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.encode(), policy


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
