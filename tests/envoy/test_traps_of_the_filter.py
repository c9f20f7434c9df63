"""The effects, on the real Envoy, of traps in the router's filter and the limits around it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.envoy.harness.biting import BODY, Bitten, post, refusal
from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, connection_manager, ext_proc, virtual_host
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import BRIEF, TENANT_HEADER, RouterProcess
from tests.traps.bitten import BITTEN, bitten


def test_envoy_refuses_full_duplex_without_trailers(tmp_path: Path) -> None:
    """Envoy rejects the configuration and names the trailers."""
    assert "trailer" in refusal(bitten("full-duplex-without-trailers"), tmp_path)


def test_buffered_response_over_the_limit(bite: Bitten) -> None:
    """A response larger than Envoy's buffer is replaced by Envoy's own 500; a small one passes."""

    def holds_little(document: Document) -> None:
        document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 16_384

    caller = bite("response-buffered", holds_little)
    sizes = {count: {"model": MODEL, "input": ["a word or two"] * count} for count in (1, 400)}
    asked = {count: caller.http.post("/v1/embeddings", json=body) for count, body in sizes.items()}
    assert {1: 200, 400: 500} == {count: response.status_code for count, response in asked.items()}


def test_route_cache_that_is_kept(bite: Bitten) -> None:
    """The header is set, and the pool sees it, but the route is still the long one."""
    caller = bite("route-cache-kept")
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    ((_, received),) = caller.received()
    assert "short" == received.headers["x-token-budget-pool"]


def test_replies_that_are_not_waited_for(bite: Bitten) -> None:
    """The router selects the short pool, but Envoy has already forwarded the request."""
    assert "long" == chat(bite("only-observed"), SHORT_TEXT)["x-served-by"]


def test_headers_that_are_not_taken(bite: Bitten) -> None:
    """Envoy drops the pool header; if `disallow_is_error` is set, the client gets an error."""

    def fails(document: Document) -> None:
        ext_proc(document)["mutation_rules"]["disallow_is_error"] = True

    assert "long" == chat(bite("headers-refused"), SHORT_TEXT)["x-served-by"]
    assert 500 == post(bite("headers-refused", fails)).status_code


def test_router_down_and_failing_closed(build: Build) -> None:
    """While the router is down, every request fails."""
    caller = build("streamed", change=BITTEN["fail-closed"])
    caller.stack.router.kill()
    assert post(caller).status_code >= 500


def test_namespace_that_is_not_received(bite: Bitten) -> None:
    """Requests are routed, but the access log lacks the decision."""
    caller = bite("namespace-dropped")
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [None] == [entry["pool"] for entry in caller.access_log()]


def test_tenant_that_is_not_forwarded(bite: Bitten) -> None:
    """Without the path, the router routes nothing; without the tenant, it does not learn per tenant."""

    def no_tenant(document: Document) -> None:
        patterns = ext_proc(document)["forward_rules"]["allowed_headers"]["patterns"]
        patterns[:] = [each for each in patterns if each != {"exact": TENANT_HEADER}] + [{"exact": ":path"}]

    assert "long" == chat(bite("headers-not-forwarded"), SHORT_TEXT)["x-served-by"]
    caller = bite("headers-not-forwarded", no_tenant)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert 0 == caller.observations()


def test_deadline_behind_the_message_timeout(bite: Bitten) -> None:
    """A slow upload times out and passes undecided, without a reason, instead of at the deadline."""
    caller = bite("message-timeout")
    timeouts = "http.ingress.ext_proc.message_timeouts"
    with RawClient(caller.stack.gateway.port) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(BODY)))
        client.send(BODY[:50])
        eventually(lambda: caller.stack.gateway.statistic(timeouts) == 1, "Envoy times out")
        client.send(BODY[50:])
        assert "long" == client.response().getheader("x-served-by")
    assert [None] == [entry["reason"] for entry in caller.access_log()]


def test_a_router_that_hangs_and_a_timeout_of_minutes(build: Build) -> None:
    """A request waits for the router long after the half second of our files, and then until it resumes."""
    caller = build("streamed", change=BITTEN["message-timeout-long"])
    caller.stack.router.signal(signal.SIGSTOP)
    with RawClient(caller.stack.gateway.port, timeout_s=3) as client:
        client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(BODY)))
        client.send(BODY)
        with pytest.raises(TimeoutError):
            client.receive(1)
        caller.stack.router.signal(signal.SIGCONT)
        assert b"HTTP/1.1 200" == client.receive(12)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Callable[..., RouterProcess]]:
    """Start routers with pools so large that no body of these tests is decided early, by its length alone."""
    pools = [{"name": "short", "max_budget_tokens": 2_000_000}, {"name": "long", "max_budget_tokens": 4_000_000}]
    with ExitStack() as ending:

        def start(**settings: object) -> RouterProcess:
            (tmp_path / "patient").mkdir()
            process = RouterProcess(tmp_path / "patient", pools=pools, **settings)
            ending.callback(process.kill)
            return process

        yield start


def test_buffer_below_what_the_router_holds(build: Build, patient: Callable[..., RouterProcess]) -> None:
    """A body between the two limits waits in vain: it is decided at the deadline instead of by its length."""
    caller = build("streamed", change=BITTEN["buffer-below-early-decision"], router=patient(exchange=BRIEF))
    assert "long" == post(caller, chat_body(MODEL, "word " * 60_000, max_tokens=16)).headers["x-served-by"]
    assert ["deadline"] == [entry["reason"] for entry in caller.access_log()]


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_a_buffer_without_a_limit(build: Build, patient: Callable[..., RouterProcess], mode: str) -> None:
    """A limit of 0 is none: over HTTP/1.1 neither mode stops reading, or refuses, a body of any size."""

    def change(document: Document) -> None:
        document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = 0
        virtual_host(document).pop("request_body_buffer_limit", None)

    caller = build(mode, change=change, router=patient(exchange={"deadline_ms": 2_000}))
    assert 200 == post(caller, chat_body(MODEL, "word " * 60_000, max_tokens=16)).status_code
    assert ["fits"] == [entry["reason"] for entry in caller.access_log()]


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
@pytest.mark.parametrize(("listener", "host"), [(65_536, 16 << 20), (1 << 20, 65_536)])
def test_the_larger_limit_is_that_of_a_body(
    build: Build, patient: Callable[..., RouterProcess], mode: str, listener: int, host: int
) -> None:
    """A host's limit raises the listener's and does not lower it: the router gets the whole body."""

    def change(document: Document) -> None:
        document["static_resources"]["listeners"][0]["per_connection_buffer_limit_bytes"] = listener
        virtual_host(document)["request_body_buffer_limit"] = host

    caller = build(mode, change=change, router=patient(exchange={"deadline_ms": 2_000}))
    post(caller, chat_body(MODEL, "word " * 60_000, max_tokens=16))
    assert ["fits"] == [entry["reason"] for entry in caller.access_log()]


def test_a_window_below_what_the_router_holds(build: Build, patient: Callable[..., RouterProcess]) -> None:
    """For HTTP/2 the limit is the window of a stream: the same body is read over HTTP/1.1."""

    def change(document: Document) -> None:
        connection_manager(document)["http2_protocol_options"] = {"initial_stream_window_size": 65_536}

    caller = build("streamed", change=change, router=patient(exchange={"deadline_ms": 2_000}))
    body = chat_body(MODEL, "word " * 60_000, max_tokens=16)
    for client in (caller.http, caller.http2):
        response = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert "long" == response.headers["x-served-by"]
    assert ["fits", "deadline"] == [entry["reason"] for entry in caller.access_log(2)]


def test_body_over_the_message_limit(build: Build, patient: Callable[..., RouterProcess]) -> None:
    """The message is refused by gRPC, and the filter fails open: the body passes undecided.

    The trap in smaller numbers: the gateway buffers more than the 1 MiB that the router accepts in a message.
    """
    listen = {"address": "127.0.0.1:0", "max_message_bytes": 1 << 20}
    caller = build("buffered", router=patient(listen=listen, exchange={"max_held_bytes": 32 << 20}))
    response = post(caller, chat_body(MODEL, "word " * 800_000, max_tokens=16))
    assert "long" == response.headers["x-served-by"]
    assert [None] == [entry["reason"] for entry in caller.access_log()]
