"""A watch of a pool whose servers are web servers of the test."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from aiohttp import web

from extproc.core.placing.pool import Endpoints
from extproc.pools.scraping import make_client
from extproc.pools.settings import WatchSettings
from extproc.pools.watching import PoolReport, PoolWatch

T = TypeVar("T")
MODELS = b'{"object":"list","data":[{"id":"m","parent":null,"max_model_len":1000}]}'
METRICS = b"vllm:num_requests_waiting 3\nvllm:num_requests_running 4\nvllm:kv_cache_usage_perc 0.5\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Watched:
    """A watch with a clock that the test sets, and the reports it published."""

    urls: tuple[str, ...]
    now_s: float = 0.0
    published: list[PoolReport] = field(default_factory=list)
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        self.watch = PoolWatch(
            "short",
            Endpoints(self.urls),
            WatchSettings(timeout_s=self.timeout_s, forget_after_s=30),
            lambda: None,
            self.published.append,
            lambda: self.now_s,
            Random(0),
        )

    async def round(self) -> PoolReport:
        """Run one round; return its report."""
        async with make_client() as client:
            return await self.watch.round(client)


def page(body: bytes) -> Handler:
    """Return a handler that serves this page."""

    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    return serve


def serving(
    scenario: Callable[[str], Awaitable[T]], models: bytes | Handler = MODELS, metrics: bytes | Handler = METRICS
) -> T:
    """Run a scenario against a server with these two pages; the scenario gets the server's URL."""

    async def run() -> T:
        app = web.Application()
        for path, body in (("/v1/models", models), ("/metrics", metrics)):
            app.router.add_get(path, page(body) if isinstance(body, bytes) else body)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            host, port = runner.addresses[0][:2]
            return await scenario(f"http://{host}:{port}")
        finally:
            await runner.cleanup()

    return asyncio.run(run())
