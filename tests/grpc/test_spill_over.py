"""A running router that polls its pools: it routes by their reports, and survives any report."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from aiohttp import web

from tests.grpc.served import App

Router = Callable[..., Any]
WATCH = "watch: {every_s: 0.05, timeout_s: 10}\nspill: {enabled: true, ramp_s: 0.01}\n"


@dataclass
class Server:
    """A server of a pool whose pages a test sets; it can also hang or send garbage."""

    models: Any = field(default_factory=lambda: {"data": [{"id": "m", "max_model_len": 9_000}]})
    waiting: Any = 0
    hangs: bool = False
    raw: bytes | None = None
    url: str = ""

    async def serve_models(self, _: web.Request) -> web.StreamResponse:
        """Serve the list of models."""
        return await self._respond(json.dumps(self.models).encode())

    async def serve_load(self, _: web.Request) -> web.StreamResponse:
        """Serve the load metrics."""
        lines = (
            f"vllm:num_requests_waiting {self.waiting}",
            "vllm:num_requests_running 4",
            "vllm:kv_cache_usage_perc 0.1",
        )
        return await self._respond("\n".join([*lines, ""]).encode())

    async def _respond(self, page: bytes) -> web.StreamResponse:
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(body=page if self.raw is None else self.raw)


@asynccontextmanager
async def serving(*servers: Server) -> AsyncIterator[str]:
    """Run the servers of a short and a long pool; yield the router's configuration."""
    runners = []
    for server in servers:
        app = web.Application()
        app.router.add_get("/v1/models", server.serve_models)
        app.router.add_get("/metrics", server.serve_load)
        runners.append(web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
        host, port = runners[-1].addresses[0][:2]
        server.url = f"http://{host}:{port}"
    short, long = servers
    try:
        yield (
            "pools:\n"
            f"  - {{name: short, max_budget_tokens: 8000, endpoints: {{urls: ['{short.url}']}}}}\n"
            f"  - {{name: long, max_budget_tokens: 64000, endpoints: {{urls: ['{long.url}']}}}}\n{WATCH}"
        )
    finally:
        for runner in runners:
            await runner.cleanup()


async def placed(app: App, call: type[Any], model: str = "m") -> tuple[str, str]:
    """Send a small request; return the pool header ("" for none) and the reason."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    async with grpc.aio.insecure_channel(app.grpc_address) as channel:
        stream = call(channel)
        await stream.headers()
        await stream.body(json.dumps(body).encode())
        message = await stream.read()
    options = message.request_headers.response.header_mutation.set_headers
    headers = {option.header.key: option.header.raw_value.decode() for option in options}
    return headers.get("x-token-budget-pool", ""), headers["x-token-budget-reason"]


def shown(app: App, name: str, pool: str) -> float:
    """Return the value of a pool's metric, or -1 if there is none yet."""
    metrics = app._streams.metrics
    return float(getattr(metrics, name).get((pool,), -1))


def test_an_overloaded_pool_is_left_and_returned_to(router: Router, call: type[Any], eventually: Any) -> None:
    """Requests go to their pool, to the larger one while theirs is overloaded (unless both are), then back."""

    async def scenario() -> list[tuple[str, str]]:
        short, long = Server(), Server()
        async with serving(short, long) as settings, router(settings) as app:
            await eventually(lambda: shown(app, "pool_models", "short") == shown(app, "pool_models", "long") == 1)
            seen = [await placed(app, call)]
            short.waiting = 100
            await eventually(lambda: shown(app, "pool_spill_share", "short") == 1)
            seen.append(await placed(app, call))
            long.waiting = 200
            await eventually(lambda: shown(app, "pool_pressure", "long") > 1)
            seen.append(await placed(app, call))
            short.waiting = long.waiting = 0
            await eventually(lambda: shown(app, "pool_spill_share", "short") == 0)
            return [*seen, await placed(app, call)]

    home, away = ("short", "fits"), ("", "spilled")
    assert [home, away, home, home] == asyncio.run(scenario())


def test_a_pool_takes_only_the_models_that_its_servers_list(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """A model that only the default pool's servers list goes there, and so does one that no server lists."""

    async def scenario() -> list[tuple[str, str]]:
        long = Server(models={"data": [{"id": "m"}, {"id": "adapter", "parent": "m"}]})
        async with serving(Server(), long) as settings, router(settings) as app:
            await eventually(
                lambda: (shown(app, "pool_models", "short"), shown(app, "pool_models", "long")) == (1, 2)
            )
            return [await placed(app, call, model) for model in ("m", "adapter", "nobody-s")]

    assert [("short", "fits"), ("", "not_served"), ("", "unknown_model")] == asyncio.run(scenario())


FAULTS: dict[str, dict[str, Any]] = {
    "hangs": {"hangs": True},
    "garbage": {"raw": b"\xff\x00<html>"},
    "a bomb": {"raw": gzip.compress(bytes(10**7))},
    "far too much": {"raw": b"vllm:num_requests_waiting 1\n" * 100_000},
    "NaN": {"waiting": "NaN", "models": {"data": []}},
    "negative": {"waiting": -5},
    "another model": {"models": {"data": [{"id": "other"}]}},
    "no models": {"models": {"data": "none"}},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("pool", [0, 1], ids=["short", "long"])
def test_a_server_that_lies_or_hangs_does_no_harm(
    router: Router, call: type[Any], eventually: Any, fault: str, pool: int
) -> None:
    """Whatever a server sends, a request is decided, and goes to its usual pool or to the default."""

    async def scenario() -> tuple[str, str]:
        servers = (Server(), Server())
        for name, value in FAULTS[fault].items():
            setattr(servers[pool], name, value)
        soon = "timeout_s: 2" if servers[pool].hangs else "timeout_s: 10"
        async with serving(*servers) as settings, router(settings.replace("timeout_s: 10", soon)) as app:
            healthy, sick = ("long", "short") if pool == 0 else ("short", "long")
            await eventually(lambda: shown(app, "pool_answered", healthy) == 1)
            await eventually(lambda: shown(app, "pool_endpoints", sick) == 1)
            result = await placed(app, call)
            assert 0 == shown(app, "pool_spill_share", "short") + shown(app, "pool_spill_share", "long")
            return result

    unserved = pool == 0 and fault in ("another model", "NaN")
    assert (("", "not_served") if unserved else ("short", "fits")) == asyncio.run(scenario())
