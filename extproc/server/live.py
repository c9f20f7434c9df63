"""The live page: what the router is doing now, as one HTML page and a stream of server-sent events.

Without viewers it costs nothing. With viewers, however many, the metrics are sampled once a second, and each
sample becomes one event that all of them get; histograms by model, which cost the most, are sampled every few
seconds. Individual decisions are kept only while there are viewers, too.

A sample of thousands of series is a megabyte. So few of those of the window are kept, which is as exact: figures
are differences, divided by the time between two samples. They are dropped when nobody has watched for so long.
"""

import asyncio
import base64
import hashlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final

import msgspec
from prometheus_client import Metric
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from extproc import __version__
from extproc.config.schema import Configuration
from extproc.core.placing.policy import Pool
from extproc.telemetry.figures import Figures, figures_between, rates_between
from extproc.telemetry.judging import Judged, judged_between
from extproc.telemetry.looks import Labels, Look, Wanted, is_histogram, is_number, look_at
from extproc.telemetry.recent import Recent, Shown

__all__ = ["About", "Live", "about_router"]

EVERY_S: Final = 1.0
JUDGES_EVERY_S: Final = 4.0
WINDOW_S: Final = 300.0
KEEPS_EVERY_S: Final = 10.0
# While the window is shorter than this, the page shows everything since the start.
SHORTEST_WINDOW_S: Final = 60.0
VIEWERS: Final = 8
END: Final = b""  # ends the stream of a viewer
PAGE: Final = resources.files("extproc.server").joinpath("live.html").read_text("utf-8")

log = logging.getLogger("dualpool")


@dataclass(frozen=True, slots=True)
class About:
    """The values that change only with the configuration."""

    version: str
    mode: str
    pools: tuple[Pool, ...]
    epsilon: float | None


def about_router(configuration: Configuration) -> About:
    """Return what the page shows of a configuration."""
    epsilon = configuration.estimator.bound_epsilon
    return About(__version__, configuration.mode.value, configuration.pools, epsilon)


@dataclass(frozen=True, slots=True)
class _Event:
    """One second: its rates by pool, and the figures of the window; `recent` is None if individual decisions are
    not available. `at_s` is when the metrics were sampled, by a monotonic clock, so that a viewer sees delays.
    """

    at_s: float
    about: About
    per_s: float
    by_pool: tuple[float, ...]
    since_start: bool
    figures: Figures
    gauges: dict[str, float]
    recent: list[Shown] | None


class _Viewed(StreamingResponse):
    """The stream of one viewer; `ended` is called when it is over, also if it never began."""

    def __init__(self, events: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


class Live:
    """The page and its stream. `watch` is called with True for the first viewer, and with False after the last.

    `metrics` returns those that are wanted, and is called on a worker thread; `recent` is None if individual
    decisions are not available.
    """

    def __init__(
        self,
        about: Callable[[], About],
        metrics: Callable[[Wanted], Iterable[Metric]],
        recent: Recent | None,
        watch: Callable[[bool], None],
    ) -> None:
        self._about = about
        self._metrics = metrics
        self._recent = recent
        self._watch = watch
        self._start = Look(time.monotonic(), {})
        self._viewers: set[asyncio.Queue[bytes]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._shown = 0
        self._forget()

    def _forget(self) -> None:
        """Drop the looks of the window."""
        self._looks: deque[Look] = deque()
        self._last: Look | None = None
        self._histograms = Look(-JUDGES_EVERY_S, {})
        self._judged: Judged | None = None
        self._labels: dict[Labels, Labels] = {}

    def routes(self) -> list[Route]:
        """Return the page's routes."""
        return [Route("/", self._page), Route("/live", self._stream)]

    def _page(self, _request: Request) -> Response:
        return Response(PAGE, media_type="text/html", headers=HEADERS)

    async def _stream(self, _request: Request) -> Response:
        if len(self._viewers) >= VIEWERS:
            return PlainTextResponse(f"there are already {VIEWERS} viewers\n", 503)
        # The queue holds one event: a slow reader misses some, and none pile up. It is counted at once:
        # others may come before the first event is asked for.
        events: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._viewers.add(events)
        return _Viewed(self._events(events), ended=lambda: self._viewers.discard(events))

    async def _events(self, events: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
        if self._ticking is None:
            if self._forgetting is not None:
                self._forgetting.cancel()
            self._watch(True)  # noqa: FBT003  (a switch)
            self._ticking = asyncio.create_task(self._tick_while_watched())
        while event := await events.get():
            yield event

    async def _tick_while_watched(self) -> None:
        try:
            while self._viewers:
                self._give(await asyncio.to_thread(self._event))
                await asyncio.sleep(EVERY_S)
        except Exception:
            log.exception("exception in the live page")
            # They see that the connection is lost, and come again: a page that gets nothing would look alive.
            self._give(END)
        finally:
            self._ticking = None
            self._watch(False)  # noqa: FBT003  (a switch)
            self._forgetting = asyncio.get_running_loop().call_later(WINDOW_S, self._forget)

    def _give(self, event: bytes) -> None:
        for viewer in self._viewers:
            if viewer.full():
                viewer.get_nowait()
            viewer.put_nowait(event)

    def _event(self) -> bytes:
        about = self._about()
        names = [pool.name for pool in about.pools]
        now = look_at(self._metrics(is_number), time.monotonic(), self._labels)
        due = now.at_s - self._histograms.at_s >= JUDGES_EVERY_S
        if due:
            self._histograms = look_at(self._metrics(is_histogram), now.at_s, self._labels)
        now = Look(now.at_s, {**now.samples, **self._histograms.samples})
        while self._looks and now.at_s - self._looks[0].at_s > WINDOW_S:
            self._looks.popleft()
        last = self._last or now
        by_pool = rates_between(last, now, names)
        covered = bool(self._looks) and now.at_s - self._looks[0].at_s >= SHORTEST_WINDOW_S
        window = self._looks[0] if covered else self._start
        if due or self._judged is None:
            self._judged = judged_between(window, now)
        if not self._looks or now.at_s - self._looks[-1].at_s >= KEEPS_EVERY_S:
            self._looks.append(now)
        self._last = now
        recent = None if self._recent is None else self._recent.since(self._shown)
        self._shown = max([self._shown, *(each.number for each in recent or ())])
        event = _Event(
            at_s=now.at_s,
            about=about,
            per_s=sum(by_pool),
            by_pool=by_pool,
            since_start=not covered,
            figures=figures_between(window, now, names, self._judged),
            gauges=_gauges(now),
            recent=recent,
        )
        return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _gauges(look: Look) -> dict[str, float]:
    """Return the gauges that have no label or one, as `name` or `name label`."""
    found = {}
    for name, values in look.samples.items():
        if not name.endswith(("_total", "_bucket", "_count", "_sum", "_created", "_info", "_per_token")):
            for labels, value in values.items():
                if len(labels) <= 1 and name.startswith("dualpool_"):
                    found[" ".join([name, *(text for _, text in labels)])] = value
    return found


def _hash_of_the_script() -> str:
    script = re.search("<script>(.*?)</script>", PAGE, re.DOTALL)
    assert script is not None, "the page has a script"
    return base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()


# Only the page's own script runs in it, and it connects to this server only.
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; img-src data:; "
    f"script-src 'sha256-{_hash_of_the_script()}'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
