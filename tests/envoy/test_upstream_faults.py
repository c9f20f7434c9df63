"""Pools that misbehave: the client gets the same response as without the router, and nothing is learned."""

import re
import zlib
from collections import Counter
from dataclasses import dataclass

import httpx
import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.gateway import closes_soon
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess

PROMPT: dict[str, object] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "one two three"}],
    "max_tokens": 40,
}
STREAM: dict[str, object] = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(frozen=True)
class Seen:
    """A response as its client sees it, without ids and times; `broke` names the error that ended it, if any."""

    status: int
    content_type: str
    body: bytes
    broke: str = ""


def ask(client: httpx.Client, url: str, fields: dict[str, object], fault: str) -> Seen:
    """Send the request and read as much of the response as arrives."""
    body, broke = b"", ""
    headers = {"x-emulate-fault": fault} if fault else {}
    with client.stream("POST", f"{url}/v1/chat/completions", json=PROMPT | fields, headers=headers) as response:
        try:
            body = b"".join(response.iter_raw())
        except httpx.RemoteProtocolError as error:
            broke = type(error).__name__
    if response.headers.get("content-encoding") == "gzip":
        # Ids compress to different lengths, so the cut is not always at the same place.
        body = zlib.decompressobj(wbits=31).decompress(body)[:100]
    body = re.sub(rb'[0-9a-f]{32}|"created": ?\d+', b"", body)
    return Seen(response.status_code, response.headers.get("content-type", ""), body, broke)


# Fault, fields that make the response a stream or not, and the cause that the router counts.
FAULTS = [
    ("broken-json", {}, "not_json"),
    ("truncated-gzip", {}, "cut_short"),
    ("truncated-gzip", STREAM, "cut_short"),
    ("broken-sse", STREAM, "broken_sse"),
    ("usage=zero", {}, "wrong_usage"),
    ("usage=negative", {}, "wrong_usage"),
    ("usage=million", {}, "wrong_usage"),
    ("usage=zero", STREAM, "wrong_usage"),
    ("usage=million", STREAM, "wrong_usage"),
    ("status=302", {}, "status"),
    ("status=429", {}, "status"),
    ("status=500", STREAM, "status"),
    ("status=503", {}, "status"),
]


def through(caller: Caller, fields: dict[str, object], fault: str = "") -> Seen:
    """Send the request through Envoy."""
    return ask(caller.http, "", fields, fault)


def directly(caller: Caller, fields: dict[str, object], fault: str = "") -> Seen:
    """Send the request to the pool directly."""
    return ask(caller.http, caller.stack.pools.short.url, fields, fault)


class Lessons:
    """Counts what the router has and has not learned from since this object was made."""

    def __init__(self, caller: Caller) -> None:
        self._router = caller.stack.router
        self._before = self._now()

    def _now(self) -> tuple[float, Counter[str]]:
        causes: Counter[str] = Counter()
        for labels, count in self._router.samples("dualpool_responses_not_learned_total"):
            causes[labels["cause"]] += int(count)
        return self._router.metric("dualpool_estimate_ratio_count"), causes

    def seen(self) -> tuple[float, dict[str, int]]:
        """Return the number of observations, and of responses not learned from, by cause."""
        now, before = self._now(), self._before
        return now[0] - before[0], dict(now[1] - before[1])


@pytest.mark.parametrize(("fault", "fields", "cause"), FAULTS, ids=lambda value: str(value)[:16])
def test_faulty_response_passes_and_teaches_nothing(
    caller: Caller, fault: str, fields: dict[str, object], cause: str
) -> None:
    """Broken, false and failed responses reach the client unchanged; the router counts why it did not learn."""
    lessons = Lessons(caller)
    assert directly(caller, fields, fault) == through(caller, fields, fault)
    eventually(lambda: lessons.seen() != (0, {}), "the router has read the response")
    assert (0, {cause: 1}) == lessons.seen()


@pytest.mark.parametrize("fields", [{}, STREAM], ids=["json", "sse"])
def test_sound_response_passes_and_teaches(caller: Caller, fields: dict[str, object]) -> None:
    """Without a fault, the client gets the same response as without the router, which learns from each."""
    lessons = Lessons(caller)
    assert directly(caller, fields) == through(caller, fields)
    eventually(lambda: lessons.seen() != (0, {}), "the router has read the response")
    assert (1, {}) == lessons.seen()


@pytest.mark.parametrize("fields", [{}, STREAM], ids=["json", "sse"])
def test_pool_that_dies_in_mid_response(
    build: Build, mode: str, router: RouterProcess, fields: dict[str, object]
) -> None:
    """A connection cut in mid-response is an error for the client, as without the router; nothing is learned.

    Envoy holds the response's head while the router looks at it. If the pool dies then, the client gets a 502
    instead of a 200 that breaks off.
    """
    caller = build(mode, change=closes_soon, router=router)
    lessons = Lessons(caller)
    assert (200, "RemoteProtocolError") == ending_of(directly(caller, fields, "die"))
    assert ending_of(through(caller, fields, "die")) in {(200, "RemoteProtocolError"), (502, "")}
    eventually(lambda: caller.stack.router.metric("dualpool_streams_open") == 0, "the stream has ended")
    # Counted as cut short, or not counted if the pool died before the router saw the head.
    learned, causes = lessons.seen()
    assert 0 == learned
    assert causes in ({"cut_short": 1}, {})


def ending_of(seen: Seen) -> tuple[int, str]:
    """Return the status and error of a response."""
    return seen.status, seen.broke


def test_interim_response_before_the_real_one(caller: Caller) -> None:
    """After a 1xx, the final response reaches the client and is learned from."""
    lessons = Lessons(caller)
    assert directly(caller, {}, "status=103") == through(caller, {}, "status=103")
    eventually(lambda: lessons.seen() != (0, {}), "the router has read the response")
    assert (1, {}) == lessons.seen()


def test_pool_that_responds_before_the_request_has_ended(caller: Caller) -> None:
    """A refusal in mid-upload reaches the client at once; nothing is learned, and no stream is left open."""
    lessons = Lessons(caller)
    body = chat_body(MODEL, "x" * 200_000)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(
            f"{caller.root}/v1/chat/completions",
            content_length=str(len(body)),
            x_tenant=caller.mark,
            x_emulate_fault="early-status=429",
        )
        client.send(body[:-1])
        if caller.stack.gateway.name == "envoy-buffered":
            client.send(body[-1:])
        assert 429 == client.response().status
    eventually(lambda: caller.stack.router.metric("dualpool_streams_open") == 0, "no stream is open")
    assert 0 == lessons.seen()[0]
