"""After a client vanishes, at any point, no stream stays open, nothing is learned, and requests are served."""

from http.client import RemoteDisconnected

import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, closes_soon
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN

BODY = chat_body(MODEL, "Count. " * 40, max_tokens=200, min_tokens=200)
STREAM_BODY = chat_body(
    MODEL, "Count.", max_tokens=200, min_tokens=200, stream=True, stream_options={"include_usage": True}
)


def begin(caller: Caller, client: RawClient, body: bytes = BODY) -> None:
    """Send the head of a request."""
    client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(body)), x_tenant=caller.mark)


def after_the_head(caller: Caller, client: RawClient) -> None:
    """Vanish before the first byte of the body."""
    begin(caller, client)
    await_stream(caller)
    client.vanish()


def in_mid_upload(caller: Caller, client: RawClient) -> None:
    """Vanish after half of the body is sent."""
    begin(caller, client)
    client.send(BODY[: len(BODY) // 2])
    await_stream(caller)
    client.vanish()


def while_the_pool_works(caller: Caller, client: RawClient) -> None:
    """Vanish after the request is sent, before the response begins."""
    begin(caller, client)
    client.send(BODY)
    eventually(lambda: len(caller.received()) == 1, "the pool has the request")
    client.vanish()


def in_mid_stream(caller: Caller, client: RawClient) -> None:
    """Vanish after a part of the response was read."""
    begin(caller, client, STREAM_BODY)
    client.send(STREAM_BODY)
    response = client.response()
    assert response.read(20).startswith(b"data: ")
    assert 1 == caller.stack.router.metric("dualpool_streams_open")
    client.vanish()
    response.close()


def await_stream(caller: Caller) -> None:
    """Wait until the router has the request."""
    eventually(lambda: caller.stack.router.metric("dualpool_streams_open") == 1, "the router has the request")


MOMENTS = [after_the_head, in_mid_upload, while_the_pool_works, in_mid_stream]


def test_clients_that_vanish(build: Build, mode: str, slow_pools: Pools) -> None:
    """Whenever the client vanishes, the stream ends, nothing is learned, and no exception is raised."""
    caller = build(mode, pools=slow_pools)
    router = caller.stack.router
    for ended, moment in enumerate(MOMENTS, 1):
        with RawClient(caller.stack.gateway.port) as client:
            moment(caller, client)
        eventually(
            lambda: router.metric("dualpool_streams_total") == ended,  # noqa: B023  (called within the iteration)
            f"the stream of {moment.__name__} has ended",
        )
        assert 0 == router.metric("dualpool_streams_open")
    assert 0 == caller.observations()
    assert 0 == router.metric("dualpool_exceptions_total")
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]


def test_connection_without_a_request(caller: Caller) -> None:
    """A connection without a request opens no stream to the router."""
    router = caller.stack.router
    before = router.metric("dualpool_streams_total")
    with RawClient(caller.stack.gateway.port) as client:
        client.vanish()
    chat(caller, SHORT_TEXT)
    eventually(lambda: router.metric("dualpool_streams_total") > before, "the stream of the chat")
    assert before + 1 == router.metric("dualpool_streams_total")


def test_response_without_a_request(build: Build, mode: str, router: RouterProcess) -> None:
    """Envoy's own refusal of a malformed head is a response phase without a request phase: it passes undecided.

    It reaches the router if the filter is on for requests without a route. Envoy then closes the connection
    without the 400 that it would otherwise send (envoyproxy/envoy issue 29440): the codec closes while the filter
    holds the response.
    """

    def change(document: Document) -> None:
        closes_soon(document)
        BITTEN["always-on"](document)

    caller = build(mode, change=change, router=router)
    names = ("dualpool_requests_total", "dualpool_exceptions_total", "dualpool_misconfigured_total")
    before = [router.metric(name) for name in names]
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length="many")
        with pytest.raises(RemoteDisconnected):
            client.response()
    assert before == [router.metric(name) for name in names]
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
