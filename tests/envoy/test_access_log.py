"""Learning from Envoy's access log: no response passes through the router, yet it learns from every request."""

import secrets
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from extproc.access_log.teacher import Outcome
from extproc.emulator.settings import Compression
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import CALLS, LONG_TEXT, SHORT_TEXT, Call, chat, chat_stream
from tests.envoy.harness.gateway import (
    Document,
    cluster,
    connection_manager,
    moved_to,
    virtual_host,
)
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import MODEL, REFUSED_TOKENS, Pools
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.router import RouterProcess

LEARNING = {"source": "access_log"}


def log_to_router(document: Document) -> None:
    """Send the log to the router's address, with a short flush interval."""
    endpoint = cluster(document, "dualpool")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    moved_to(document, "dualpool_log", f"{address['address']}:{address['port_value']}")
    log_settings(document)["common_config"]["buffer_flush_interval"] = "0.05s"


def log_settings(document: Document) -> Document:
    """Return the settings of the gRPC access log."""
    settings: Document = connection_manager(document)["access_log"][0]["typed_config"]
    return settings


@pytest.fixture
def logged(build: Build) -> Callable[..., Caller]:
    """Build stacks from `streamed-access-log.yaml`, optionally with further changes."""

    def make(change: Callable[[Document], None] | None = None, **settings: Any) -> Caller:
        def all_changes(document: Document) -> None:
            log_to_router(document)
            if change is not None:
                change(document)

        return build("streamed-access-log", change=all_changes, **{"learning": LEARNING, **settings})

    return make


def entries(caller: Caller, outcome: Outcome) -> float:
    """Return how many entries had this outcome."""
    return caller.stack.router.metric("dualpool_access_log_entries_total", outcome=outcome)


def not_learned(caller: Caller, cause: str) -> float:
    """Return how many responses were not learned from, for this cause."""
    return caller.stack.router.metric("dualpool_responses_not_learned_total", cause=cause)


def has_learned(caller: Caller, responses: int) -> bool:
    """Return whether exactly `responses` responses were learned from."""
    return caller.observations() == responses


def test_every_api_teaches(logged: Callable[..., Caller]) -> None:
    """The router learns from requests of every API, JSON and SSE, in both pools, without keeping their streams."""
    caller = logged()
    for number, ask in enumerate(CALLS, 1):
        pool = ask(caller, LONG_TEXT if number % 2 else SHORT_TEXT)["x-served-by"]
        assert ("long" if number % 2 else "short") == pool, ask.__name__
        eventually(partial(has_learned, caller, number), f"{ask.__name__} is learned from")
    router = caller.stack.router
    assert (len(CALLS), 0) == (
        router.metric("dualpool_streams_released_total"),
        router.metric("dualpool_streams_kept_total"),
    )
    assert len(CALLS) == router.metric("dualpool_estimate_ratio_count")


def test_without_the_log_nothing_is_learned(build: Build) -> None:
    """Behind a file without that log the router keeps no stream and gets no entry; requests are routed."""
    caller = build("streamed", learning=LEARNING)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    router = caller.stack.router
    eventually(lambda: router.metric("dualpool_streams_released_total") == 1, "the decision is counted")
    assert 0 == caller.observations() == router.metric("dualpool_streams_kept_total")
    assert 0 == entries(caller, Outcome.TAUGHT)


def test_responses_keep_their_content_length(logged: Callable[..., Caller]) -> None:
    """A response that does not pass through the router is framed as the pool framed it."""
    assert "content-length" in chat(logged(), SHORT_TEXT)


def test_a_repair_teaches_and_is_counted(logged: Callable[..., Caller]) -> None:
    """The router learns from a request that was retried on the long pool, though it saw no response headers."""
    caller = logged()
    raw = caller.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": SHORT_TEXT}], max_tokens=REFUSED_TOKENS
    )
    assert ("long", "2") == (raw.headers["x-served-by"], raw.headers["x-envoy-attempt-count"])
    eventually(lambda: caller.observations() == 1, "the repaired response is learned from")
    assert 1 == caller.stack.router.metric("dualpool_retried_total", pool="short")


def test_a_refusal_is_counted(logged: Callable[..., Caller]) -> None:
    """Nothing is learned from a 400 that reaches the client, because the log does not contain its reason."""
    caller = logged()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 100_000}
    assert httpx.codes.BAD_REQUEST == caller.http.post("/v1/chat/completions", json=body).status_code
    eventually(lambda: not_learned(caller, "status") == 1, "the refusal is counted")
    assert 0 == caller.observations()


def test_a_client_that_leaves_teaches_nothing(logged: Callable[..., Caller], slow_pools: Pools) -> None:
    """A response that the client aborted is counted as cut short and not learned from."""
    caller = logged(pools=slow_pools)
    body = chat_body(
        MODEL, "Count.", max_tokens=400, min_tokens=400, stream=True, stream_options={"include_usage": True}
    )
    client = RawClient(caller.stack.gateway.port)
    client.head(f"{caller.root}/v1/chat/completions", content_length=str(len(body)), x_tenant=caller.mark)
    client.send(body)
    response = client.response()
    assert response.read(20).startswith(b"data: ")
    client.vanish()
    response.close()
    eventually(lambda: not_learned(caller, "cut_short") == 1, "the cut is counted")
    assert 0 == caller.observations()


@pytest.fixture
def compressing_pools() -> Iterator[Pools]:
    """Run pools that compress their responses."""
    pools = Pools(compression=Compression.GZIP)
    yield pools
    pools.stop()


def test_compressed_responses_are_counted(logged: Callable[..., Caller], compressing_pools: Pools) -> None:
    """Envoy cannot read usage from a compressed response: nothing is learned, and the response is counted."""
    caller = logged(pools=compressing_pools)
    chat(caller, SHORT_TEXT)
    eventually(lambda: not_learned(caller, "encoding") == 1, "the compressed response is counted")
    assert 0 == caller.observations()


def test_streams_without_usage_are_not_counted_as_a_fault(logged: Callable[..., Caller]) -> None:
    """A stream without `include_usage` is not learned from, and is not counted as missing its usage."""
    caller = logged()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "stream": True}
    assert caller.http.post("/v1/chat/completions", json=body).text.endswith("data: [DONE]\n\n")
    eventually(lambda: entries(caller, Outcome.NOT_LEARNED) == 1, "its entry has arrived")
    assert 0 == not_learned(caller, "no_usage")


@pytest.mark.parametrize("ask", [chat, chat_stream])
def test_requests_are_served_while_no_router_receives_the_log(
    logged: Callable[..., Caller], build: Build, ask: Call, tmp_path: Path
) -> None:
    """While the router is down, requests are served; after a restart, it learns from new requests."""
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    learning = LEARNING | {"access_log": {"key_file": str(key)}}
    caller = logged(learning=learning)
    ask(caller, SHORT_TEXT)
    eventually(lambda: caller.observations() == 1, "the first response is learned from")
    caller.stack.router.signal(signal.SIGKILL)
    caller.stack.router.wait()
    for _ in range(20):
        assert "long" == ask(caller, SHORT_TEXT)["x-served-by"]
    again = build.replace_router(caller, learning=learning)
    eventually(lambda: ask(again, SHORT_TEXT)["x-served-by"] == "short", "the router is asked again")
    eventually(lambda: again.observations() >= 1, "the new router learns")


def test_no_log_service(logged: Callable[..., Caller]) -> None:
    """If nothing listens at the log's address, requests are decided and served as usual."""
    caller = logged(lambda document: moved_to(document, "dualpool_log", "127.0.0.1:9"))
    for _ in range(50):
        assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert 0 == sum(entries(caller, outcome) for outcome in Outcome)


def test_a_log_service_that_hangs_is_disconnected(logged: Callable[..., Caller], tmp_path: Path) -> None:
    """If the router that receives the log hangs, Envoy closes the stream; requests are decided as usual."""
    other = RouterProcess(tmp_path, learning=LEARNING)

    def change(document: Document) -> None:
        moved_to(document, "dualpool_log", other.address)
        options = cluster(document, "dualpool_log")["typed_extension_protocol_options"]
        http = options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"]
        http["http2_protocol_options"]["connection_keepalive"] = {"interval": "2s", "timeout": "0.5s"}

    try:
        caller = logged(change)
        chat(caller, SHORT_TEXT)
        eventually(lambda: active(caller) == 1, "a stream of entries is open")
        other.signal(signal.SIGSTOP)
        eventually(lambda: active(caller) == 0, "the stream is closed")
        assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    finally:
        other.signal(signal.SIGCONT)
        other.kill()


def active(caller: Caller) -> int:
    """Return how many access log streams Envoy has open."""
    return caller.stack.gateway.statistic("cluster.dualpool_log.upstream_rq_active")


def log_every_request(document: Document) -> None:
    """Log every request, including those of another virtual host, which does not use the router."""
    del connection_manager(document)["access_log"][0]["filter"]
    host = virtual_host(document)
    others = {
        "name": "others",
        "domains": ["others.example"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 204}}],
        "typed_per_filter_config": {
            "envoy.filters.http.ext_proc": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
                "disabled": True,
            }
        },
    }
    assert host["name"] != "others"
    connection_manager(document)["route_config"]["virtual_hosts"].append(others)


def test_entries_of_other_hosts_are_foreign(logged: Callable[..., Caller]) -> None:
    """Many entries of another virtual host are counted as foreign; the router still learns from ours."""
    caller = logged(log_every_request)
    for _ in range(300):
        assert httpx.codes.NO_CONTENT == caller.http.get("/", headers={"host": "others.example"}).status_code
    chat(caller, SHORT_TEXT)
    eventually(lambda: entries(caller, Outcome.FOREIGN) == 300, "all entries have arrived")
    eventually(lambda: caller.observations() == 1, "our entry is learned from")
