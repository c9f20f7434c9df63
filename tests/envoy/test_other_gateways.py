"""Gateways unlike the files in `envoy/`: BUFFERED_PARTIAL, full duplex both ways, compressed or huge responses."""

from collections.abc import Iterator
from hashlib import sha256

import pytest

from extproc.emulator.settings import Compression
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import CALLS, LONG_TEXT, SHORT_TEXT, chat, chat_stream
from tests.envoy.harness.gateway import Document, ext_proc, virtual_host
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess

JSON = {"content-type": "application/json"}


def head(caller: Caller, body: bytes) -> bytes:
    """Return the head of a chat request."""
    fields = f"host: pools\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"POST {caller.root}/v1/chat/completions HTTP/1.1\r\n{fields}\r\n".encode()


def buffered_partial(document: Document) -> None:
    """Buffer at most 64 KiB of the body, and send that to the router."""
    ext_proc(document)["processing_mode"]["request_body_mode"] = "BUFFERED_PARTIAL"
    document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 65536
    del virtual_host(document)["request_body_buffer_limit"]


def test_buffered_partial(build: Build, router: RouterProcess) -> None:
    """A body that arrives with its headers is routed; over the limit it goes long, complete, without a 413."""
    caller = build("buffered", change=buffered_partial, router=router)
    for text, pool in ((SHORT_TEXT, "short"), (LONG_TEXT, "long"), ("word " * 40_000, "long")):
        body = chat_body(MODEL, text, max_tokens=16)
        with RawClient(caller.stack.gateway.port) as client:
            client.send(head(caller, body) + body)
            response = client.response()
            assert (pool, 200) == (response.getheader("x-served-by"), response.status)
            assert sha256(body).hexdigest() == response.getheader("x-body-sha256")
    assert ["fits", "too_long", "cut_off"] == [entry["reason"] for entry in caller.access_log(3)]


def test_buffered_partial_cannot_route_a_body_that_comes_later(build: Build, router: RouterProcess) -> None:
    """If the headers are answered before any body has come, Envoy forwards them at once, to the long pool."""
    caller = build("buffered", change=buffered_partial, router=router)
    body = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
    answered = "http.ingress.ext_proc.stream_msgs_received"
    with RawClient(caller.stack.gateway.port) as client:
        client.send(head(caller, body))
        eventually(lambda: caller.stack.gateway.statistic(answered) == 1, "the headers are answered")
        client.send(body)
        response = client.response()
        assert ("long", 200) == (response.getheader("x-served-by"), response.status)
        assert sha256(body).hexdigest() == response.getheader("x-body-sha256")


def duplex_both_ways(document: Document) -> None:
    """Send every byte of the response through the router as well."""
    modes = ext_proc(document)["processing_mode"]
    modes |= {"response_body_mode": "FULL_DUPLEX_STREAMED", "response_trailer_mode": "SEND"}


def test_full_duplex_in_both_directions(build: Build, router: RouterProcess) -> None:
    """Requests of every API are routed, their responses learned from; a body of 20 MB arrives complete."""
    caller = build("full-duplex", change=duplex_both_ways, router=router)
    served = [call(caller, SHORT_TEXT)["x-served-by"] for call in CALLS]
    assert ["short"] * len(CALLS) == served
    eventually(lambda: caller.observations() == len(CALLS), "every response is learned from")
    body = b'{"messages": [' + b"[]" * (10 << 20)
    response = caller.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert ("long", 400) == (response.headers["x-served-by"], response.status_code)
    assert sha256(body).hexdigest() == response.headers["x-body-sha256"]


@pytest.fixture(params=[Compression.GZIP, Compression.BROTLI])
def compressing_pools(request: pytest.FixtureRequest) -> Iterator[Pools]:
    """Run pools that compress their responses."""
    pools = Pools(compression=request.param)
    yield pools
    pools.stop()


def test_compressed_responses_teach(
    build: Build, mode: str, compressing_pools: Pools, router: RouterProcess
) -> None:
    """Compressed JSON and streams reach the client unchanged, and the router learns from them."""
    caller = build(mode, pools=compressing_pools, router=router)
    encodings = [call(caller, SHORT_TEXT).get("content-encoding") for call in (chat, chat_stream)]
    assert [compressing_pools.short.settings.compression] * 2 == encodings
    eventually(lambda: caller.observations() == 2, "both responses are learned from")


def test_response_that_is_too_large_to_read(build: Build, mode: str) -> None:
    """A response over max_response_bytes reaches the client complete, and is counted as not learned."""
    caller = build(mode, exchange={"max_response_bytes": 1024})
    response = caller.openai.embeddings.create(model=MODEL, input=["one", "two", "three"] * 20)
    assert 60 == len(response.data)
    router = caller.stack.router
    eventually(
        lambda: router.metric("dualpool_responses_not_learned_total", cause="too_large") == 1,
        "the response is counted",
    )
    assert 0 == caller.observations()
