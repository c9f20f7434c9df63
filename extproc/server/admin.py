"""The admin pages: /metrics, /healthz, /readyz, /config, /state; admin_http.py serves them.

What belongs to the event loop is read on the event loop; /healthz means that the loop responds in time. The loop
only hands out frozen objects: encoding them takes longer than a request may wait. The encoded state is cached for
a while, until it is changed, so that no client can have it encoded over and over.
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

__all__ = ["PAGES", "PROBES", "AdminPages", "Cached", "Page", "Pages", "text_page"]

LOOP_ANSWERS_WITHIN_S = 2.0
# A value is cached for this many times the time it took to make, so making it takes at most 1/20 of the time, and
# for at most so many seconds: traffic changes what was learned, too.
KEEPS_FOR = 20
MAX_KEPT_S = 10.0
PAGES = ("/metrics", "/healthz", "/readyz", "/config", "/state")
# The pages for probes and scrapes; the others show the configuration and the names of models and tenants.
PROBES = PAGES[:3]
Page = tuple[HTTPStatus, str, bytes]
T = TypeVar("T")


class Pages(Protocol):
    """The source of the pages."""

    def page(self, path: str) -> Page:
        """Return status, content type and body for a path; may be called on any thread."""
        ...


class AdminPages:
    """The pages of a router; may be used on any thread. `ready` and `state` are called on the event loop."""

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
        self._state_json = Cached(lambda: to_json(self._ask(self._state)).encode())
        self.state_changed = self._state_json.forget

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


class Cached:
    """A cache of a function's return value; for any thread. A value is not used after `version` has changed."""

    def __init__(self, make: Callable[[], bytes], version: Callable[[], object] = lambda: None) -> None:
        self._make = make
        self._version = version
        self._forgotten = 0
        self._made, self._made_of = b"", (0, version())
        self._good_until_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        """Return the cached value, or a new one if it has expired or been forgotten."""
        with self._lock:
            began_s, current = time.monotonic(), (self._forgotten, self._version())
            if began_s >= self._good_until_s or current != self._made_of:
                self._made, self._made_of = self._make(), current
                ended_s = time.monotonic()
                self._good_until_s = ended_s + min(KEEPS_FOR * (ended_s - began_s), MAX_KEPT_S)
            return self._made

    def forget(self) -> None:
        """Forget the cached value, also one that is being made: what it is made of has changed."""
        self._forgotten += 1


def text_page(status: HTTPStatus, text: str) -> Page:
    """Return a page of plain text."""
    return status, "text/plain; charset=utf-8", text.encode()


def _unavailable(text: str) -> Page:
    return text_page(HTTPStatus.SERVICE_UNAVAILABLE, text)
