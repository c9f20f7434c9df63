"""The admin HTTP server: /metrics, /healthz, /readyz, /config, /state, in a thread of its own.

What belongs to the event loop is asked of the event loop; that it answers in time is what /healthz means. It is
asked for frozen objects and nothing else: to write them out takes longer than a request may wait.
"""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import LearnedState
from extproc.server.loop import Loop
from extproc.state.snapshot import to_json

__all__ = ["Admin", "AdminPages"]

LOOP_RESPONSES_WITHIN_S = 2.0
STOPS_WITHIN_S = 0.05
Page = tuple[HTTPStatus, str, bytes]
T = TypeVar("T")


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
                    return HTTPStatus.OK, "application/json", to_json(self._ask(self._state)).encode()
                case _:
                    return _text(HTTPStatus.NOT_FOUND, "paths: /metrics /healthz /readyz /config /state\n")
        except TimeoutError:
            return _unavailable(f"the event loop has not answered for {LOOP_RESPONSES_WITHIN_S} s\n")

    def _ask(self, function: Callable[[], T]) -> T:
        return self._loop.ask(function, LOOP_RESPONSES_WITHIN_S)


class Admin:
    """The listening server; `address` is where, with the real port. Raises ConfigurationError when it can't."""

    def __init__(self, address: str, pages: AdminPages) -> None:
        host, _, port = address.rpartition(":")
        try:
            self._server = _server(host.strip("[]"), int(port), pages)
        except (OSError, UnicodeError) as error:  # the latter for what is no name of a host
            raise ConfigurationError(f"admin.address: {address!r} cannot be bound: {error}") from error
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


def _server(host: str, port: int, pages: AdminPages) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server((host, port), _handler(pages))


def _handler(pages: AdminPages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        wbufsize = -1  # head and body in one piece: in two, the second waits 40 ms for a delayed acknowledgement

        def do_GET(self) -> None:
            self.wfile.write(self._response_head())

        def do_HEAD(self) -> None:
            self._response_head()

        def _response_head(self) -> bytes:
            """Send all that comes before the body; return the body."""
            status, content_type, body = pages.page(self.path)
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            return body

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            """Stay silent: probes and scrapes come every few seconds."""

    return Handler


def _text(status: HTTPStatus, text: str) -> Page:
    return status, "text/plain; charset=utf-8", text.encode()


def _unavailable(text: str) -> Page:
    return _text(HTTPStatus.SERVICE_UNAVAILABLE, text)
