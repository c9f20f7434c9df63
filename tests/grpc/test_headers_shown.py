"""The router exposes the values of a fixed list of headers, and of no other."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import HttpHeaders, ProcessingRequest

from extproc.telemetry.log import JsonFormatter
from tests.grpc.served import App
from tests.grpc.test_traces_sent import CHAT, TRACE, Collector, collector
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]
__all__ = ["collector"]  # a fixture
# Header: where its value may be seen. A header not listed here is shown nowhere.
SHOWN = {
    # So that logs and spans can be joined with the gateway's own.
    "x-request-id": {"log", "spans"},
    "traceparent": {"spans"},
    # The configured tenant_header: learning is kept per tenant. Names of credential headers are refused there.
    "x-tenant": {"/metrics", "/state", "state file"},
}
USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
SETTINGS = """
tenant_header: x-tenant
state: {{path: '{folder}/state'}}
traces: {{endpoint: 'http://127.0.0.1:{port}/v1/traces'}}
"""


def marked(name: str) -> str:
    """Return a value that can be recognised wherever it is shown."""
    return f"marked-{name.lower().replace(':', '')}-value"


REQUEST = (
    *("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "user-agent", "x-forwarded-for"),
    *(":authority", "x-user", "x-envoy-original-path", "x-forwarded-client-cert", "x-request-id", "x-tenant"),
)
RESPONSE = ("set-cookie", "x-pool-token", "server", "www-authenticate", "location")


async def exchange(app: App, call: type[Any]) -> None:
    """Send an exchange with a marked value in every header, and in the query of the path."""
    more = [(name, marked(name)) for name in REQUEST]
    more.append(("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await stream.headers(path=f"/v1/chat/completions?key={marked('query')}", more=more)
        await stream.body(CHAT)
        message = ProcessingRequest(response_headers=HttpHeaders())
        content_type = f"application/json; profile={marked('content-type')}"
        for key, value in [
            (":status", "200"),
            ("content-type", content_type),
            *((n, marked(n)) for n in RESPONSE),
        ]:
            message.response_headers.headers.headers.add(key=key, raw_value=value.encode())
        await stream.stub.write(message)
        await stream.response_body(USAGE)
        while await stream.read() is not None:
            pass
    await app.calls_over()


async def pages(app: App) -> dict[str, str]:
    """Return the text of the admin pages, and the first event of the live page."""
    async with httpx.AsyncClient(base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES) as client:
        shown = {path: (await client.get(path)).text for path in ("/", "/metrics", "/config", "/state")}
        async with client.stream("GET", "/live") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    return shown | {"/live": line}
    return shown


def test_only_values_of_listed_headers_are_shown(
    router: Router, call: type[Any], collector: Collector, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Logs at level debug, spans, every admin page, the live page and the state file are searched for values."""

    async def scenario() -> dict[str, str]:
        async with router(SETTINGS.format(folder=tmp_path, port=collector.server_port)) as app:
            await exchange(app, call)
            return await pages(app)

    caplog.set_level(logging.DEBUG)
    shown = asyncio.run(scenario())
    shown["log"] = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    shown["spans"] = str(collector.taken.get(timeout=10))
    shown["state file"] = (tmp_path / "state").read_bytes().decode("latin-1")
    assert {"/", "/metrics", "/config", "/state", "/live", "log", "spans", "state file"} == set(shown)
    seen = defaultdict(set)
    values = {name: marked(name) for name in (*REQUEST, *RESPONSE, "query", "content-type")} | {
        "traceparent": TRACE
    }
    for name, value in values.items():
        for place, text in shown.items():
            if value in text:
                seen[name].add(place)
    assert SHOWN == seen
