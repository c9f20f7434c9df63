"""The admin pages: /metrics, /healthz, /readyz, /config, /state; admin_http.py serves them.

What belongs to the event loop is asked of the event loop; that it answers in time is what /healthz means. It is
asked for frozen objects and nothing else: to write them out takes longer than a request may wait. What is written
out is kept for a while, so that no client can have it made again and again.
"""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from extproc.core.estimator.protocol import LearnedState
from extproc.state.snapshot import to_json

if TYPE_CHECKING:  # a supervisor serves pages without a loop, and without gRPC
    from extproc.server.loop import Loop

__all__ = ["PAGES", "PROBES", "AdminPages", "Kept", "Page", "Pages", "text_page"]

LOOP_ANSWERS_WITHIN_S = 2.0
# What was made is kept for so many times as long as that took: at most a twentieth of the time is spent on it.
KEEPS_FOR = 20
PAGES = ("/metrics", "/healthz", "/readyz", "/config", "/state")
# What probes and scrapes need; the others say how the router is configured, and names of models and tenants.
PROBES = PAGES[:3]
Page = tuple[HTTPStatus, str, bytes]
T = TypeVar("T")


class Pages(Protocol):
    """What is served."""

    def page(self, path: str) -> Page:
        """Return status, content type and body for a path; called on any thread."""
        ...


class AdminPages:
    """What each path answers; for any thread. `ready` and `state` are called on the event loop."""

    def __init__(
        self,
        registry: CollectorRegistry,
        loop: "Loop",
        ready: Callable[[], bool],
        state: Callable[[], LearnedState],
        config_json: Callable[[], bytes],
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._state = state
        self._config_json = config_json
        self._loop = loop
        self._state_json = Kept(lambda: to_json(self._ask(self._state)).encode())

    def page(self, path: str) -> Page:
        """Return status, content type and body for a path."""
        try:
            match path.partition("?")[0]:
                case "/metrics":
                    return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
                case "/healthz":
                    self._ask(lambda: None)
                    return text_page(HTTPStatus.OK, "ok\n")
                case "/readyz":
                    ready = self._ask(self._ready)
                    return text_page(HTTPStatus.OK, "ready\n") if ready else _unavailable("not ready\n")
                case "/config":
                    return HTTPStatus.OK, "application/json", self._config_json()
                case "/state":
                    return HTTPStatus.OK, "application/json", self._state_json()
                case _:
                    return text_page(HTTPStatus.NOT_FOUND, f"paths: {' '.join(PAGES)}\n")
        except TimeoutError:
            return _unavailable(f"the event loop has not answered for {LOOP_ANSWERS_WITHIN_S} s\n")

    def _ask(self, function: Callable[[], T]) -> T:
        return self._loop.ask(function, LOOP_ANSWERS_WITHIN_S)


class Kept:
    """What a function returned, for as long as that is good for."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made = b""
        self._good_until_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        """Return it, made anew when it has been kept for long enough."""
        with self._lock:
            began_s = time.monotonic()
            if began_s >= self._good_until_s:
                self._made = self._make()
                ended_s = time.monotonic()
                self._good_until_s = ended_s + KEEPS_FOR * (ended_s - began_s)
            return self._made


def text_page(status: HTTPStatus, text: str) -> Page:
    """Return a page of plain text."""
    return status, "text/plain; charset=utf-8", text.encode()


def _unavailable(text: str) -> Page:
    return text_page(HTTPStatus.SERVICE_UNAVAILABLE, text)
