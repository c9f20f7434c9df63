"""The router dies, hangs or drains at any moment, and no client sees an error."""

import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import httpx
import httpx2
import openai
import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, chat, chat_stream
from tests.envoy.harness.gateway import checks_often, closes_soon, waits_briefly
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import RawClient, chat_body

STREAMED_RESPONSE = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": 60,
    "min_tokens": 60,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def end_router(router_signal: signal.Signals, caller: Caller) -> None:
    """End the router with a signal, wait for its exit and check its exit code."""
    caller.stack.router.signal(router_signal)
    code = caller.stack.router.wait()
    assert (0 if router_signal is signal.SIGTERM else -router_signal) == code


def events(response: httpx.Response) -> Iterator[str]:
    """Return the data of each event of a stream."""
    return (line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: "))


def await_unhealthy(caller: Caller) -> None:
    """Wait until Envoy's health check has noticed that the router is down."""
    healthy = "cluster.dualpool.membership_healthy"
    eventually(lambda: caller.stack.gateway.statistic(healthy) == 0, "Envoy has noticed that the router is down")


@pytest.fixture
def traffic() -> Iterator[Callable[[Caller], "Traffic"]]:
    """Start four clients that alternate JSON and streamed requests until the test ends."""
    stop = threading.Event()
    with ThreadPoolExecutor(4) as threads:

        def start(caller: Caller) -> Traffic:
            traffic = Traffic(caller, stop)
            for _ in range(4):
                threads.submit(traffic.run)
            return traffic

        try:
            yield start
        finally:
            stop.set()


class Traffic:
    """Clients that send continuously: `served` has each response's pool, `errors` those since `forget_errors`."""

    def __init__(self, caller: Caller, stop: threading.Event) -> None:
        self._caller, self._stop = caller, stop
        self.served: list[str] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Send until stopped."""
        calls = itertools.cycle((chat, chat_stream))
        while not self._stop.is_set():
            errors = self.errors
            try:
                self.served.append(next(calls)(self._caller, SHORT_TEXT)["x-served-by"])
            except (openai.APIError, httpx2.HTTPError) as error:
                errors.append(repr(error))

    def forget_errors(self) -> None:
        """Discard the errors of all requests sent so far, including those still in flight."""
        self.errors = []

    def await_more(self, pool: str, requests: int = 12) -> None:
        """Wait until a pool has served `requests` more requests."""
        target = self.served.count(pool) + requests
        eventually(lambda: self.served.count(pool) >= target, f"{requests} more requests in pool {pool}")


def test_router_that_is_down(build: Build, mode: str) -> None:
    """While the router is down, the long pool serves every request, JSON and streamed."""
    caller = build(mode, change=checks_often)
    caller.stack.router.kill()
    await_unhealthy(caller)
    served = [
        call(caller, text)["x-served-by"] for call in (chat, chat_stream) for text in (SHORT_TEXT, LONG_TEXT)
    ]
    assert ["long"] * 4 == served
    assert {(None, "long", 200)} == {(e["pool"], e["route"], e["status"]) for e in caller.access_log(4)}


def test_router_drains_in_mid_traffic(build: Build, mode: str, traffic: Callable[[Caller], "Traffic"]) -> None:
    """No client sees an error while the router drains and exits; then the long pool serves."""
    caller = build(mode, change=checks_often, drain_s=1.0)
    requests = traffic(caller)
    requests.await_more("short")
    end_router(signal.SIGTERM, caller)
    requests.await_more("long")
    assert [] == requests.errors


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_router_killed_in_mid_traffic(build: Build, mode: str, traffic: Callable[[Caller], "Traffic"]) -> None:
    """No client sees an error when the router is killed; then the long pool serves."""
    caller = build(mode)
    requests = traffic(caller)
    requests.await_more("short")
    end_router(signal.SIGKILL, caller)
    requests.await_more("long")
    assert [] == requests.errors


@pytest.mark.parametrize("mode", ["full-duplex"])
def test_router_killed_in_mid_traffic_full_duplex(
    build: Build, mode: str, traffic: Callable[[Caller], "Traffic"]
) -> None:
    """FULL_DUPLEX_STREAMED cannot fail open after body was sent: errors last until Envoy notices."""
    caller = build(mode, change=checks_often)
    requests = traffic(caller)
    requests.await_more("short")
    end_router(signal.SIGKILL, caller)
    await_unhealthy(caller)
    requests.forget_errors()
    requests.await_more("long", 20)
    assert [] == requests.errors


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("streamed", signal.SIGTERM),
        ("streamed", signal.SIGKILL),
        ("buffered", signal.SIGTERM),
        ("buffered", signal.SIGKILL),
        ("full-duplex", signal.SIGTERM),
    ],
    ids=str,
)
def test_router_ends_in_mid_stream(build: Build, mode: str, how: signal.Signals, slow_pools: Pools) -> None:
    """A streamed response that the router is reading reaches the client complete, however the router ends."""
    caller = build(mode, pools=slow_pools)
    with caller.http.stream("POST", "/v1/chat/completions", json=STREAMED_RESPONSE) as response:
        coming = events(response)
        seen = [next(coming) for _ in range(3)]
        assert 1 == caller.stack.router.metric("dualpool_streams_open")
        end_router(how, caller)
        seen += coming
    assert "[DONE]" == seen[-1]
    chunks = [json.loads(data) for data in seen[:-1]]
    assert 60 == sum(1 for chunk in chunks for choice in chunk["choices"] if choice["delta"].get("content"))
    assert 60 == chunks[-1]["usage"]["completion_tokens"]


@pytest.mark.parametrize("mode", ["full-duplex"])
def test_router_killed_in_mid_stream_full_duplex(build: Build, mode: str, slow_pools: Pools) -> None:
    """FULL_DUPLEX_STREAMED: a response that a killed router was reading is cut, which the client can detect."""
    caller = build(mode, change=closes_soon, pools=slow_pools)
    with caller.http.stream("POST", "/v1/chat/completions", json=STREAMED_RESPONSE) as response:
        coming = events(response)
        next(coming)
        end_router(signal.SIGKILL, caller)
        with pytest.raises(httpx.RemoteProtocolError):
            list(coming)


# Status and pool of a request that was half uploaded when the router was killed.
KILLED_BEFORE = {"streamed": (200, "long"), "buffered": (200, "long"), "full-duplex": (500, None)}


def test_router_killed_before_its_decision(build: Build, mode: str) -> None:
    """If the router is killed while it waits for a body, the long pool serves the complete request.

    Except in FULL_DUPLEX_STREAMED: the bytes that the router held are lost with it, and the client gets an error.
    """
    caller = build(mode)
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(body)))
        client.send(body[:100])
        eventually(lambda: caller.stack.router.metric("dualpool_streams_open") == 1, "the router has the request")
        end_router(signal.SIGKILL, caller)
        client.send(body[100:])
        response = client.response()
        assert KILLED_BEFORE[mode] == (response.status, response.getheader("x-served-by"))
        assert response.getheader("x-body-sha256") in {sha256(body).hexdigest(), None}


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_router_that_hangs(build: Build, mode: str) -> None:
    """If the router neither answers nor dies, the long pool serves after message_timeout."""
    caller = build(mode, change=waits_briefly)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    caller.stack.router.signal(signal.SIGSTOP)
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    caller.stack.router.signal(signal.SIGCONT)
    eventually(lambda: chat(caller, SHORT_TEXT)["x-served-by"] == "short", "the router is asked again")


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_router_that_hangs_in_mid_stream(build: Build, mode: str, slow_pools: Pools) -> None:
    """A router that hangs in mid-response delays the response by message_timeout, but does not cut it."""
    caller = build(mode, change=waits_briefly, pools=slow_pools)
    with caller.http.stream("POST", "/v1/chat/completions", json=STREAMED_RESPONSE) as response:
        coming = events(response)
        seen = [next(coming) for _ in range(3)]
        caller.stack.router.signal(signal.SIGSTOP)
        seen += coming
    assert "[DONE]" == seen[-1]
    assert 60 == json.loads(seen[-2])["usage"]["completion_tokens"]
    caller.stack.router.signal(signal.SIGCONT)


def test_router_that_comes_back_is_asked_again(build: Build) -> None:
    """While the router is down, everything goes long; Envoy then uses a new one on the same address."""
    caller = build("streamed")
    caller.stack.router.kill()
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    caller = build.replace_router(caller)
    eventually(lambda: chat(caller, SHORT_TEXT)["x-served-by"] == "short", "the new router is asked")
