"""Every body arrives unchanged, whatever its size, speed, framing or encoding."""

import gzip
import signal
from collections.abc import Iterator
from hashlib import sha256

import httpx
import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import chat
from tests.envoy.harness.gateway import Document, connection_manager, route, virtual_host, waits_briefly
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import BRIEF, RouterProcess
from tests.plain import NO_AUTHORITIES
from tests.traps.bitten import BITTEN

MIB = 1 << 20
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = {"content-type": "application/json"}
TEXT = chat_body(MODEL, "Is this the short one?", max_tokens=16)
MEGABYTES_OF_IMAGE = chat_body(MODEL, "", max_tokens=16).replace(
    b'"content": ""',
    b'"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%b"}}]'
    % (b"iVBOR+/w" * (5 * MIB // 2)),
)


def in_pieces(body: bytes, piece: int = 100_000) -> Iterator[bytes]:
    """Cut a body into pieces, so that it is sent chunked, without a content-length."""
    return (body[at : at + piece] for at in range(0, len(body), piece))


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_20_megabytes_arrive_byte_for_byte(caller: Caller, framing: str) -> None:
    """20 MB reach the long pool unchanged, with and without a content-length."""
    body = MEGABYTES_OF_IMAGE
    content = body if framing == "content-length" else in_pieces(body)
    response = caller.http.post("/v1/chat/completions", content=content, headers=JSON)
    assert ("long", sha256(body).hexdigest()) == (
        response.headers["x-served-by"],
        response.headers["x-body-sha256"],
    )
    assert len(body) > 20 * MIB


@pytest.mark.parametrize("size", [100_000, 2_000_000])
@pytest.mark.parametrize("framing", ["content-length", "none"])
def test_bodies_over_http2_are_decided_and_arrive(caller: Caller, size: int, framing: str) -> None:
    """Envoy has another limit for HTTP/2 than for HTTP/1.1: the window of a stream."""
    body = chat_body(MODEL, "word " * (size // 5), max_tokens=16)
    content = body if framing == "content-length" else in_pieces(body)
    response = caller.http2.post("/v1/chat/completions", content=content, headers=JSON)
    assert ("HTTP/2", "long", sha256(body).hexdigest()) == (
        response.http_version,
        response.headers["x-served-by"],
        response.headers["x-body-sha256"],
    )
    assert "early" == caller.received()[-1][1].headers["x-token-budget-reason"]


@pytest.mark.parametrize(
    ("mode", "passed_on", "pool", "reason"),
    [
        ("streamed", False, "short", "fits"),
        ("buffered", False, "short", "fits"),
        ("full-duplex", False, "short", "fits"),
        ("streamed", True, "long", "deadline"),
        ("full-duplex", True, "long", "deadline"),
    ],
)
def test_a_client_that_waits_for_100_continue(
    build: Build, mode: str, pool: str, reason: str, *, passed_on: bool
) -> None:
    """Envoy says 100 at once; where it leaves that to the pool, the body comes after the deadline, if at all."""

    def change(document: Document) -> None:
        connection_manager(document)["proxy_100_continue"] = passed_on

    caller = build(mode, change=change, exchange=BRIEF if reason == "deadline" else {})
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", expect="100-continue", content_length=str(len(TEXT)))
        assert CONTINUE == client.receive(len(CONTINUE))
        client.send(TEXT)
        response = client.response()
        assert (200, pool) == (response.status, response.headers["x-served-by"])
    assert [reason] == [entry["reason"] for entry in caller.access_log()]


def test_a_client_that_waits_for_100_continue_waits_in_vain_in_buffered_mode(build: Build) -> None:
    """Where Envoy leaves the 100 to the pool, the filter waits for the body, and the client for the pool.

    This is the fault without the fix; a request_timeout of 1 s ends it.
    """

    def change(document: Document) -> None:
        BITTEN["expect-hangs"](document)
        connection_manager(document)["request_timeout"] = "1s"

    caller = build("buffered", change=change)
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", expect="100-continue", content_length=str(len(TEXT)))
        assert 408 == client.response().status


# Envoy's filter removes it from everything that it streams through, since a processor might change the body.
WITH_LENGTH = {"streamed": (False, False), "buffered": (True, False), "full-duplex": (False, False)}


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_what_becomes_of_a_content_length(caller: Caller, mode: str, version: str) -> None:
    """Only buffered mode keeps that of a request, and none that of a response which the router reads."""
    client = caller.http2 if version == "HTTP/2" else caller.http
    response = client.post("/v1/chat/completions", content=TEXT, headers=JSON)
    ((pool, received),) = caller.received()
    assert ("short", version, 200) == (pool, response.http_version, response.status_code)
    assert WITH_LENGTH[mode] == ("content-length" in received.headers, "content-length" in response.headers)


def test_the_content_length_of_a_response_that_the_router_does_not_read(caller: Caller) -> None:
    """A response to a request that was decided early keeps its content-length."""
    body = chat_body(MODEL, "word " * 20_000, max_tokens=16)
    assert "content-length" in caller.http.post("/v1/chat/completions", content=body, headers=JSON).headers


def test_20_megabytes_of_broken_json_arrive_byte_for_byte(caller: Caller) -> None:
    """A body that no pool can parse arrives unchanged and gets the long pool's own refusal."""
    body = b'{"messages": [' + b"\xff\x00{}" * (5 * MIB)
    response = caller.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert ("long", 400) == (response.headers["x-served-by"], response.status_code)
    assert sha256(body).hexdigest() == response.headers["x-body-sha256"]


def test_body_without_content_length_is_routed(caller: Caller) -> None:
    """A short chunked request goes to the short pool."""
    response = caller.http.post("/v1/chat/completions", content=in_pieces(TEXT, 20), headers=JSON)
    assert ("short", 200) == (response.headers["x-served-by"], response.status_code)
    assert sha256(TEXT).hexdigest() == response.headers["x-body-sha256"]


def test_gzip_request_is_forwarded_unchanged(caller: Caller) -> None:
    """A compressed request is routed by its content and forwarded unchanged; the short pool refuses it here."""
    body = gzip.compress(TEXT)
    response = caller.http.post("/v1/chat/completions", content=body, headers=JSON | {"content-encoding": "gzip"})
    assert ("long", 400) == (response.headers["x-served-by"], response.status_code)
    assert sha256(body).hexdigest() == response.headers["x-body-sha256"]
    assert "fits" == caller.access_log()[0]["reason"]
    assert ["short", "long"] == [pool for pool, _ in caller.received()]
    assert {"gzip"} == {received.headers["content-encoding"] for _, received in caller.received()}


def test_bad_request_gets_the_pools_own_400(caller: Caller) -> None:
    """A malformed request gets exactly the pool's own response."""
    body = b'{"model": "served-model", "messages": "none"'
    response = caller.http.post("/v1/chat/completions", content=body, headers=JSON)
    direct = httpx.post(
        f"{caller.stack.pools.long.url}/v1/chat/completions", content=body, headers=JSON, verify=NO_AUTHORITIES
    )
    assert (direct.status_code, direct.json()) == (response.status_code, response.json())


def test_bodiless_and_foreign_requests_are_forwarded_unchanged(caller: Caller) -> None:
    """Requests with other methods and paths, and without a body, go to the long pool without a decision."""
    models = caller.http.get("/v1/models")
    empty = caller.http.post("/v1/chat/completions", headers=JSON)
    foreign = caller.http.post("/v1/somewhere/else", content=TEXT, headers=JSON)
    assert ["long", "long"] == [models.headers["x-served-by"], empty.headers["x-served-by"]]
    assert [200, 400, 404] == [models.status_code, empty.status_code, foreign.status_code]
    assert [None] * 3 == [entry["pool"] for entry in caller.access_log(3)]


# STREAMED: Envoy sends trailers only after the replies to the body, so only the deadline decides.
# FULL_DUPLEX_STREAMED: Envoy 1.40 doubles the body on routes with a retry policy. The short pool refuses that; the
# retry arrives intact.
WITH_TRAILERS = {"streamed": ("long", 1), "buffered": ("short", 1), "full-duplex": ("long", 2)}


def test_request_with_trailers_arrives_whole(build: Build, mode: str) -> None:
    """A chunked body that ends in trailers arrives complete, in the pool that the mode allows."""

    def with_trailers(document: Document) -> None:
        connection_manager(document)["http_protocol_options"] = {"enable_trailers": True}

    caller = build(mode, change=with_trailers, exchange=BRIEF if mode == "streamed" else {})
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", transfer_encoding="chunked", trailer="x-checksum")
        for piece in in_pieces(TEXT, 30):
            client.chunk(piece)
        client.end_chunks(x_checksum="abc")
        response = client.response()
        served = response.getheader("x-served-by"), int(response.getheader("x-envoy-attempt-count") or 0)
        assert (*WITH_TRAILERS[mode], 200) == (*served, response.status)
        assert sha256(TEXT).hexdigest() == response.getheader("x-body-sha256")


def test_trailers_that_envoy_drops_change_nothing(caller: Caller) -> None:
    """By default Envoy drops HTTP/1.1 trailers; the request is then like any other."""
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", transfer_encoding="chunked", trailer="x-checksum")
        client.chunk(TEXT)
        client.end_chunks(x_checksum="abc")
        response = client.response()
        assert ("short", 200) == (response.getheader("x-served-by"), response.status)
        assert sha256(TEXT).hexdigest() == response.getheader("x-body-sha256")


@pytest.mark.parametrize("mode", ["streamed", "full-duplex"])
def test_slow_upload_goes_to_the_long_pool(build: Build, mode: str) -> None:
    """A body that arrives too slowly is decided at the router's deadline: it reaches the long pool complete."""
    caller = build(mode, exchange=BRIEF)
    router = caller.stack.router
    before = router.metric("dualpool_requests_total", reason="deadline")
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(TEXT)))
        client.send(TEXT[:40])
        eventually(lambda: router.metric("dualpool_requests_total", reason="deadline") > before, "the deadline")
        client.send(TEXT[40:])
        response = client.response()
        assert ("long", 200) == (response.getheader("x-served-by"), response.status)
        assert sha256(TEXT).hexdigest() == response.getheader("x-body-sha256")
    assert ["deadline"] == [entry["reason"] for entry in caller.access_log()]


def test_slow_upload_is_waited_for_in_buffered_mode(build: Build) -> None:
    """If the gateway buffers the body, a pause longer than the deadline and message_timeout has no effect."""
    caller = build("buffered", change=waits_briefly, exchange=BRIEF)
    gateway, router = caller.stack.gateway, caller.stack.router
    with RawClient(gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(TEXT)))
        client.send(TEXT[:40])
        answered = "http.ingress.ext_proc.stream_msgs_received"
        eventually(lambda: gateway.statistic(answered) == 1, "the headers are answered")
        # Wait for one message_timeout on Envoy's own clock: stop the router and send another request. The router's
        # deadline (400 ms, with a timeout of 500 ms) passes in the meantime.
        router.signal(signal.SIGSTOP)
        assert "long" == chat(caller, "Is this the short one?")["x-served-by"]
        assert 1 == gateway.statistic("http.ingress.ext_proc.message_timeouts")
        router.signal(signal.SIGCONT)
        client.send(TEXT[40:])
        response = client.response()
        assert ("short", 200) == (response.getheader("x-served-by"), response.status)


def small_buffers(document: Document) -> None:
    """Lower the limit of buffered.yaml to 64 KiB, so that a small body exceeds it."""
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 65536
    del virtual_host(document)["request_body_buffer_limit"]
    route(document, "very_large_body")["match"]["headers"][0]["range_match"]["start"] = 65537


def test_over_the_buffer_limit(build: Build, router: RouterProcess) -> None:
    """Over the limit, a request with a content-length bypasses the router; a chunked one is Envoy's own 413."""
    caller = build("buffered", change=small_buffers, router=router)
    body = chat_body(MODEL, "word " * 20_000, max_tokens=16)
    known = caller.http.post("/v1/chat/completions", content=body, headers=JSON)
    unknown = caller.http.post("/v1/chat/completions", content=in_pieces(body), headers=JSON)
    assert [(200, "long"), (413, None)] == [
        (a.status_code, a.headers.get("x-served-by")) for a in (known, unknown)
    ]
    caller.stack.gateway.set_runtime("dualpool.bypass_percent", 0)
    assert 413 == caller.http.post("/v1/chat/completions", content=body, headers=JSON).status_code
    assert [None, None, None] == [entry["pool"] for entry in caller.access_log(3)]
    assert 0 == caller.observations()


def test_bypass_for_very_large_bodies(build: Build, mode: str, router: RouterProcess) -> None:
    """After the bypass is enabled at the admin port, very large bodies go long without a message to the router."""

    def from_64_kib(document: Document) -> None:
        route(document, "very_large_body")["match"]["headers"][0]["range_match"]["start"] = 65536

    caller = build(mode, change=from_64_kib, router=router)
    body = chat_body(MODEL, "word " * 20_000, max_tokens=16)

    def routed() -> tuple[str, str | None, str]:
        known = len(caller.stack.gateway.access_log(caller.mark))
        response = caller.http.post("/v1/chat/completions", content=body, headers=JSON)
        entry = caller.access_log(known + 1)[-1]
        return response.headers["x-served-by"], entry["pool"], entry["route"]

    caller.stack.gateway.set_runtime("dualpool.bypass_percent", 0)
    assert ("long", "long", "long") == routed()
    caller.stack.gateway.set_runtime("dualpool.bypass_percent", 100)
    assert ("long", None, "very_large_body") == routed()
    assert 1 == caller.stack.gateway.statistic("http.ingress.ext_proc.streams_started")


def test_streams_that_are_never_closed(build: Build, mode: str) -> None:
    """With `exchange.close: never`, requests are routed, and bodies of any size arrive complete."""
    caller = build(mode, exchange={"close": "never"})
    long = chat_body(MODEL, "word " * 400_000, max_tokens=16)
    foreign = caller.http.post("/upload", content=in_pieces(long), headers=JSON)
    assert 404 == foreign.status_code
    for body, pool in ((TEXT, "short"), (long, "long"), (b"no JSON", "long")):
        response = caller.http.post("/v1/chat/completions", content=body, headers=JSON)
        assert pool == response.headers["x-served-by"]
        assert sha256(body).hexdigest() == response.headers["x-body-sha256"]
    eventually(lambda: caller.stack.router.metric("dualpool_streams_open") == 0, "all streams have ended")
    gateway = caller.stack.gateway
    assert 4 == gateway.statistic("http.ingress.ext_proc.streams_closed")
    assert 0 == gateway.statistic("http.ingress.ext_proc.failure_mode_allowed")
