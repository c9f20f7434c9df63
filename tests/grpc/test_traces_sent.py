import asyncio
import http.server
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import grpc
import pytest

from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from tests.grpc.served import App

Router = Callable[..., Any]
CHAT = b'{"model":"m","messages":[{"role":"user","content":"How are you?"}],"max_tokens":9}'
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(http.server.ThreadingHTTPServer):
    """A collector of traces sent as OTLP/JSON over HTTP."""

    def __init__(self) -> None:
        self.taken: Queue[dict[str, Any]] = Queue()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """Stores each posted batch."""

    def do_POST(self) -> None:
        """Called with a batch of spans."""
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/json"
        self.server.taken.put(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Yield a running collector."""
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def ask(app: App, call: type[Any], *headers: tuple[str, str]) -> None:
    """Send one request with these headers, and let the gateway end the stream."""
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await stream.headers(more=headers)
        await stream.body(CHAT)
        assert await stream.read() is not None


def test_a_sampled_request_is_a_span_at_the_collector(
    router: Router, call: type[Any], collector: Collector
) -> None:
    """Of two requests, one in a sampled trace, the collector gets one span, at the latest when the router ends."""
    settings = f"traces: {{endpoint: 'http://127.0.0.1:{collector.server_port}/v1/traces', service_name: here}}"

    async def scenario() -> None:
        async with router(settings) as app:
            await ask(app, call)
            await ask(app, call, ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("x-request-id", "r-7"))

    asyncio.run(scenario())
    (resource,) = collector.taken.get(timeout=10)["resourceSpans"]
    (span,) = resource["scopeSpans"][0]["spans"]
    assert TRACE == span["traceId"]
    assert 0 < int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"])
    attributes = {each["key"]: each["value"].get("stringValue") for each in span["attributes"]}
    assert ("short", "r-7") == (attributes["dualpool.pool"], attributes["dualpool.request_id"])
    assert "here" in {each["value"].get("stringValue") for each in resource["resource"]["attributes"]}
    assert collector.taken.empty()


def test_a_missing_collector_does_no_harm(router: Router, call: type[Any]) -> None:
    """Without a collector for its spans, the router decides requests and ends in time."""

    async def scenario() -> None:
        async with router("traces: {endpoint: 'http://127.0.0.1:9/v1/traces'}") as app:
            await ask(app, call, ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_traces_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces without their packages are a configuration error that says what to install."""
    monkeypatch.setitem(sys.modules, "extproc.telemetry.traces", None)
    settings = (
        "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ntraces: {endpoint: 'http://c/v1'}"
    )
    with pytest.raises(ConfigurationError, match=r"install dualpool\[otel\]"):
        App(parse(settings))


def test_logs_contain_the_gateways_request_id(
    router: Router, call: type[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The log line of a decision has Envoy's x-request-id, to be joined with Envoy's access log."""

    async def scenario() -> None:
        async with router() as app:
            await ask(app, call, ("x-request-id", "r-7"))

    with caplog.at_level(logging.DEBUG, "dualpool"):
        asyncio.run(scenario())
    fields = [record.fields for record in caplog.records if "decided" == record.message]  # type: ignore[attr-defined]
    assert ["r-7"] == [each["request_id"] for each in fields]
