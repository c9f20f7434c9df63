"""The admin HTTP server: /metrics, /healthz, /readyz, /config, /state, in a thread of its own.

What belongs to the event loop is asked of the event loop; that it answers in time is what /healthz means. It is
asked for frozen objects and nothing else: to write them out takes longer than a request may wait. What is written
out is kept for a while, so that no client can have it made again and again.
"""

import ipaddress
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import LearnedState
from extproc.server.loop import Loop
from extproc.state.snapshot import to_json

__all__ = ["Admin", "AdminPages"]

LOOP_RESPONSES_WITHIN_S = 2.0
STOPS_WITHIN_S = 0.05
CONNECTIONS = 32
# What took so long to make is good for so many times as long: no more than a twentieth of the time is spent on it.
KEEPS_FOR = 20
PAGES = ("/metrics", "/healthz", "/readyz", "/config", "/state")
# What probes and scrapes need; the others say how the router is configured, and names of models and tenants.
PROBES = PAGES[:3]
Page = tuple[HTTPStatus, str, bytes]
T = TypeVar("T")

log = logging.getLogger("dualpool")


class AdminPages:
    """What each path answers; the functions given are called on the event loop."""

    def __init__(
        self,
        registry: CollectorRegistry,
        loop: Loop,
        ready: Callable[[], bool],
        state: Callable[[], LearnedState],
        config_json: bytes,
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._state = state
        self._config_json = config_json
        self._loop = loop
        self._state_json = _Kept(lambda: to_json(self._ask(self._state)).encode())

    def page(self, path: str) -> Page:
        """Return status, content type and body for a path."""
        try:
            match path.partition("?")[0]:
                case "/metrics":
                    return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
                case "/healthz":
                    self._ask(lambda: None)
                    return _text(HTTPStatus.OK, "ok\n")
                case "/readyz":
                    ready = self._ask(self._ready)
                    return _text(HTTPStatus.OK, "ready\n") if ready else _unavailable("not ready\n")
                case "/config":
                    return HTTPStatus.OK, "application/json", self._config_json
                case "/state":
                    return HTTPStatus.OK, "application/json", self._state_json()
                case _:
                    return _text(HTTPStatus.NOT_FOUND, f"paths: {' '.join(PAGES)}\n")
        except TimeoutError:
            return _unavailable(f"the event loop has not answered for {LOOP_RESPONSES_WITHIN_S} s\n")

    def _ask(self, function: Callable[[], T]) -> T:
        return self._loop.ask(function, LOOP_RESPONSES_WITHIN_S)


class _Kept:
    """What a function returned, for as long as that is good for."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made = b""
        self._good_until_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        with self._lock:
            began_s = time.monotonic()
            if began_s >= self._good_until_s:
                self._made = self._make()
                ended_s = time.monotonic()
                self._good_until_s = ended_s + KEEPS_FOR * (ended_s - began_s)
            return self._made


class Admin:
    """A listening server for some of the pages; `address` is where, with the real port.

    Raises ConfigurationError, with the setting's name, when it cannot listen.
    """

    def __init__(self, setting: str, address: str, pages: AdminPages, paths: Collection[str] = PAGES) -> None:
        host, _, port = address.rpartition(":")
        try:
            self._server = _Server(host.strip("[]"), int(port), pages, paths)
        except (OSError, UnicodeError) as error:  # the latter for what is no name of a host
            raise ConfigurationError(f"{setting}: {address!r} cannot be bound: {error}") from error
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": STOPS_WITHIN_S}, name="admin", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, pages: AdminPages, paths: Collection[str]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._pages = pages
        self._paths = paths
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__((host, port), _Handler)
        self._is_local = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def page(self, path: str, host: str) -> Page:
        """Return a page of those that are served here."""
        if self._is_local and not _names_this_machine(host):
            # Somebody's web page, by a name of its own that it has pointed at this machine.
            return _text(HTTPStatus.MISDIRECTED_REQUEST, "reach this address by its number, or as localhost\n")
        if path.partition("?")[0] not in self._paths:
            return _text(HTTPStatus.NOT_FOUND, f"paths: {' '.join(self._paths)}\n")
        try:
            return self._pages.page(path)
        except Exception:  # the client is told, whatever it is
            log.exception("exception in the admin server")
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "an exception in the router; see its log\n")

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  (the base class's)
        """Serve a connection, unless there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Serve a connection in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002
        """Log what went wrong; that a client has left is nothing."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            log.error("exception in the admin server", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 30
    wbufsize = -1  # head and body in one piece: in two, the second waits 40 ms for a delayed acknowledgement

    def do_GET(self) -> None:
        self.wfile.write(self._response_head())

    def do_HEAD(self) -> None:
        self._response_head()

    def _response_head(self) -> bytes:
        """Send all that comes before the body; return the body."""
        status, content_type, body = self.server.page(self.path, self.headers.get("host", ""))
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Stay silent: probes and scrapes come every few seconds."""


def _names_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name in {"", "localhost"}:
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _text(status: HTTPStatus, text: str) -> Page:
    return status, "text/plain; charset=utf-8", text.encode()


def _unavailable(text: str) -> Page:
    return _text(HTTPStatus.SERVICE_UNAVAILABLE, text)
