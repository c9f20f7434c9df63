"""Asking servers what they serve and how busy they are: slow ones, and ones that send nonsense or too much."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import httpx
import pytest
from aiohttp import web

from extproc.emulator import Emulator, EmulatorSettings
from extproc.emulator.settings import TokenizerName
from extproc.pools.addresses import AddressesUnknown, EndpointSettings, endpoints
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.scraping import MAX_PAGE_BYTES
from extproc.pools.watching import PoolReport, PoolWatch, WatchSettings

T = TypeVar("T")
MODELS = b'{"object":"list","data":[{"id":"m","parent":null,"max_model_len":1000}]}'
METRICS = b"vllm:num_requests_waiting 3\nvllm:num_requests_running 4\nvllm:kv_cache_usage_perc 0.5\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Watched:
    """A watch whose clock stands still, and what it published."""

    urls: tuple[str, ...]
    now_s: float = 0.0
    published: list[PoolReport] = field(default_factory=list)
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        self.watch = PoolWatch(
            "short",
            EndpointSettings(self.urls),
            WatchSettings(timeout_s=self.timeout_s, forget_after_s=30),
            lambda _, report: self.published.append(report),
            lambda: self.now_s,
            Random(0),
        )

    async def round(self) -> PoolReport:
        """Ask once."""
        async with httpx.AsyncClient() as client:
            return await self.watch.round(client)


def page(body: bytes) -> Handler:
    """Return what serves a page."""

    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    return serve


def serving(
    scenario: Callable[[str], Awaitable[T]], models: bytes | Handler = MODELS, metrics: bytes | Handler = METRICS
) -> T:
    """Run a scenario against a server with these two pages; it is given the server's URL."""

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


def test_a_server_is_asked_for_its_models_and_its_load() -> None:
    """The emulated vLLM says what it serves, with its context, and that nothing waits."""

    async def scenario() -> PoolReport:
        settings = EmulatorSettings(model="m", max_model_len=1000, tokenizer=TokenizerName.BYTES)
        emulator = Emulator(settings)
        await emulator.start()
        try:
            return await Watched((emulator.url,)).round()
        finally:
            await emulator.stop()

    report = asyncio.run(scenario())
    (endpoint,) = report.endpoints
    assert ((ModelReport("m", "", 1000),), LoadReport(0, 0, 0.0)) == (endpoint.models, endpoint.load)
    assert (True, 1, 1) == (report.known, report.asked, report.answered)


def test_a_server_that_goes_silent_is_known_for_a_while() -> None:
    """What it said stands until it is too old; then the pool is as if never asked."""

    async def scenario(url: str) -> tuple[list[bool], Watched]:
        watched = Watched((url, "http://127.0.0.1:9"))  # nobody listens on the port for discarding
        await watched.round()
        return [], watched

    _, watched = serving(scenario)
    known = []
    for now_s in (1.0, 29.0, 31.0):  # the server is gone
        watched.now_s = now_s
        known.append(asyncio.run(watched.round()).known)
    assert [True, True, False] == known
    assert (2, 0) == (watched.published[-1].asked, watched.published[-1].answered)


def test_a_clock_that_goes_back_forgets_nothing() -> None:
    """An hour back makes no report older."""

    async def scenario(url: str) -> bool:
        watched = Watched((url,), now_s=3_600.0)
        await watched.round()
        watched.now_s = 0.0
        return (await watched.round()).known

    assert serving(scenario)


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    """Send more than any page may hold."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2 * MAX_PAGE_BYTES // 65_536):
        await response.write(b"x" * 65_536)
    return response


async def refuse(_: web.Request) -> web.StreamResponse:
    """Say that there is no such page."""
    return web.Response(status=404)


@pytest.mark.parametrize("models", [b"<html>", b"", b"\xff\xfe", b'{"data": 5}', endless, refuse])
def test_a_server_whose_models_cannot_be_read_is_not_known(models: bytes | Handler) -> None:
    """Nonsense, nothing, or too much: the server is asked again, and nothing is believed."""

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, models=models)
    assert (False, 1, 0) == (report.known, report.asked, report.answered)


@pytest.mark.parametrize("metrics", [b"<html>", b"vllm:num_requests_waiting NaN\n", endless, refuse])
def test_a_server_without_metrics_still_says_what_it_serves(metrics: bytes | Handler) -> None:
    """Where the load cannot be read there is none, and the models are known."""

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    (endpoint,) = serving(scenario, metrics=metrics).endpoints
    assert ("m", None) == (endpoint.models[0].name, endpoint.load)


def test_a_server_that_hangs_costs_its_timeout_and_no_more() -> None:
    """A page that never comes is given up, and the others of the pool are known."""

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,), timeout_s=0.05).round()

    report = serving(scenario, metrics=hang)
    assert (True, None) == (report.known, report.endpoints[0].load)


def test_one_name_is_as_many_servers_as_it_has_addresses() -> None:
    """Each address of a headless service is asked; of hundreds only so many."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return [*(f"10.0.{n // 250}.{n % 250}" for n in range(500)), "fd00::1"]

    found = asyncio.run(endpoints(EndpointSettings(dns="http://vllm-short:8000"), resolve))
    assert (256, "http://10.0.0.0:8000") == (len(found), found[0])


def test_an_ipv6_address_is_put_in_brackets() -> None:
    """So that its port can be told from it."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["fd00::1"]

    assert ("https://[fd00::1]:443",) == asyncio.run(endpoints(EndpointSettings(dns="https://vllm"), resolve))


def test_a_name_that_does_not_resolve_keeps_the_servers_that_are_known() -> None:
    """A resolver that is down changes nothing of what was known."""

    async def scenario(url: str) -> tuple[PoolReport, PoolReport]:
        watched = Watched((url,))
        before = await watched.round()
        watched.watch.where = EndpointSettings(dns="http://no-such-name.invalid:8000")
        return before, await watched.round()

    before, after = serving(scenario)
    assert before.endpoints == after.endpoints


def test_servers_in_a_file_are_read_each_time(tmp_path: Path) -> None:
    """One URL in each line; comments and empty lines do not count; a file that is gone is told."""
    file = tmp_path / "servers"
    file.write_text("# ours\nhttp://a:1/\n\n http://b:2\n")
    where = EndpointSettings(file=str(file))
    assert ("http://a:1", "http://b:2") == asyncio.run(endpoints(where))
    file.unlink()
    with pytest.raises(AddressesUnknown, match="servers"):
        asyncio.run(endpoints(where))
