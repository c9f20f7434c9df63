"""Envoy's own options for a router or a long pool that is down, as described in docs/envoy.md."""

import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from extproc.documents import read_document
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT
from tests.envoy.harness.gateway import Document, cluster, moved_to, route
from tests.envoy.harness.http2 import Http2Client
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess

JSON = {"content-type": "application/json"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "envoy.md"


def with_small_bodies(build: Build, mode: str, **settings: Any) -> Caller:
    """Return a caller of an Envoy whose operator has enabled the route for small bodies."""
    caller = build(mode, **settings)
    caller.stack.gateway.set_runtime("dualpool.small_bodies_percent", 100)
    return caller


def ask(caller: Caller, text: str, max_tokens: int = 16, path: str = "/v1/chat/completions") -> tuple[str, str]:
    """Send a request; return the pool that served it and the number of attempts."""
    response = caller.http.post(path, content=chat_body(MODEL, text, max_tokens=max_tokens), headers=JSON)
    return response.headers["x-served-by"], response.headers["x-envoy-attempt-count"]


def test_small_bodies_go_short_without_the_router(build: Build, mode: str) -> None:
    """With the option, small bodies go short while the router is down; those refused there are retried long."""
    caller = with_small_bodies(build, mode)
    caller.stack.router.kill()
    # In full duplex, the first request after the kill may fail; this error makes Envoy notice.
    eventually(lambda: caller.http.get("/v1/models").status_code == 200, "Envoy serves")
    assert ("short", "1") == ask(caller, SHORT_TEXT)
    assert ("long", "2") == ask(caller, SHORT_TEXT, REFUSED_TOKENS)
    assert ("long", "1") == ask(caller, "word " * 4_000)
    assert "long" == caller.http.get("/v1/models").headers["x-served-by"]
    routes = {entry["route"] for entry in caller.access_log(4)}
    assert {"small_body", "long"} == routes


def test_the_router_decides_small_bodies_while_it_is_up(build: Build, mode: str) -> None:
    """While the router is up, it decides: a small body with a large output goes long in one attempt."""
    caller = with_small_bodies(build, mode)
    assert ("short", "1") == ask(caller, SHORT_TEXT)
    assert ("long", "1") == ask(caller, SHORT_TEXT, 30_000)
    assert ["short", "long"] == [entry["route"] for entry in caller.access_log(2)]


def test_small_bodies_are_off_by_default(build: Build, mode: str) -> None:
    """Without the option, a small body does not go short while the router is down."""
    caller = build(mode)
    caller.stack.router.kill()
    eventually(lambda: caller.http.get("/v1/models").status_code == 200, "Envoy serves")
    assert ("long", "1") == ask(caller, SHORT_TEXT)


def test_slow_small_bodies_are_whole_before_the_router_sees_them(build: Build, mode: str) -> None:
    """In every mode, Envoy waits for all of a slow small body, so that no retry can have half of it."""
    caller = with_small_bodies(build, mode, exchange={"deadline_ms": 50})
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
    started = "http.ingress.ext_proc.streams_started"
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(body)))
        client.send(body[:100])
        eventually(
            lambda: caller.stack.gateway.statistic("http.ingress.downstream_rq_active") == 1, "Envoy has the head"
        )
        assert 0 == caller.stack.gateway.statistic(started)
        client.send(body[100:])
        assert "short" == client.response().getheader("x-served-by")
    assert ["fits"] == [entry["reason"] for entry in caller.access_log()]


def test_a_small_body_with_trailers_without_the_router(build: Build) -> None:
    """Envoy doubles it, as on every route with retries: the short pool refuses it, and the retry is whole."""
    caller = with_small_bodies(build, "streamed")
    caller.stack.router.kill()
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
    with Http2Client(caller.stack.gateway.port) as client:
        stream = client.begin(f"{caller.root}/v1/chat/completions", content_length=str(len(body)))
        client.send(stream, body, end=False)
        client.trailers(stream, checksum="abc")
        assert 200 == client.response(stream)
        assert sha256(body).hexdigest() == client.headers[stream]["x-body-sha256"]
    arrived = [(pool, received.body_sha256) for pool, received in caller.received()]
    assert [("short", sha256(body * 2).hexdigest()), ("long", sha256(body).hexdigest())] == arrived


@pytest.fixture
def refusing() -> Iterator[str]:
    """Yield an address that refuses connections and that no other process can take."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def documented_option() -> Document:
    """Return the settings that docs/envoy.md gives for a long pool that is down."""
    section = DOCUMENT.read_text("utf-8").partition("## When the long pool is down")[2]
    block = section.partition("```yaml\n")[2].partition("```")[0]
    return cast(Document, read_document(block))


def merge(into: Document, added: Document) -> None:
    """Merge `added` into other settings recursively."""
    for key, value in added.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def goes_short_when_long_is_down(document: Document) -> None:
    """Apply the documented option to a file, with faster health checks."""
    said = documented_option()
    known = {each["name"] for each in document["static_resources"]["clusters"]}
    for added in said["clusters"]:
        if added["name"] not in known:
            document["static_resources"]["clusters"].append({"name": added["name"]})
        merge(cluster(document, added["name"]), added)
        for check in cluster(document, added["name"]).get("health_checks", []):
            check |= {"interval": "0.1s", "no_traffic_interval": "0.1s"}
    for added in said["routes"]:
        merge(route(document, added["name"]), added)


def await_long_pool_down(caller: Caller) -> None:
    """Wait until Envoy has noticed that the long pool is down, and that the short pool is up."""
    statistic = caller.stack.gateway.statistic
    eventually(
        lambda: (
            statistic("cluster.pool_long.health_check.failure") > 0
            and statistic("cluster.pool_short.membership_healthy") == 1
        ),
        "Envoy has noticed which pool is up",
    )


def test_long_pool_that_is_down(build: Build, router: RouterProcess, refusing: str) -> None:
    """By default, short requests are served unless refused; refused and long ones get a 503."""
    caller = build("streamed", change=lambda document: moved_to(document, "pool_long", refusing), router=router)
    assert ("short", "1") == ask(caller, SHORT_TEXT)
    wrong = caller.http.post("/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": -1})
    long = caller.http.post("/v1/chat/completions", content=chat_body(MODEL, "word " * 4_000), headers=JSON)
    assert [503, 503] == [wrong.status_code, long.status_code]


def test_long_pool_that_is_down_with_the_option(build: Build, refusing: str) -> None:
    """With the option, the short pool serves what fits, with or without a router; its 400 reaches the client."""

    def down(document: Document) -> None:
        goes_short_when_long_is_down(document)
        moved_to(document, "pool_long", refusing)

    caller = build("streamed", change=down)
    await_long_pool_down(caller)
    wrong = caller.http.post("/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": -1})
    assert (400, "short") == (wrong.status_code, wrong.headers["x-served-by"])
    caller.stack.router.kill()
    assert "short" == ask(caller, SHORT_TEXT)[0]
    refused = caller.http.post("/v1/chat/completions", content=chat_body(MODEL, "word " * 4_000), headers=JSON)
    assert (400, "short") == (refused.status_code, refused.headers["x-served-by"])


def test_the_option_changes_nothing_while_the_long_pool_is_up(build: Build, router: RouterProcess) -> None:
    """Requests go to the same pools as without the option, and the default route still has no retries."""
    caller = build("streamed", change=goes_short_when_long_is_down, router=router)
    eventually(
        lambda: caller.stack.gateway.statistic("cluster.pool_long.membership_healthy") == 1,
        "the long pool is healthy",
    )
    assert ("short", "1") == ask(caller, SHORT_TEXT)
    assert ("long", "1") == ask(caller, "word " * 4_000)
    assert "retry_policy" not in str(documented_option()["routes"])
