"""Polling servers for their models and load, including slow ones and ones that send nonsense or too much."""

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from aiohttp import web

from extproc.core.placing.pool import Endpoints
from extproc.emulator import Emulator, EmulatorSettings
from extproc.emulator.settings import TokenizerName
from extproc.pools.addresses import AddressesUnknown, endpoints
from extproc.pools.reports import LoadReport, ModelReport
from extproc.pools.scraping import MAX_AT_ONCE, MAX_PAGE_BYTES, EndpointReport, make_client
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


def test_a_server_is_asked_for_its_models_and_its_load() -> None:
    """An emulated vLLM reports its model with the context length, and that no request waits."""

    async def scenario() -> PoolReport:
        settings = EmulatorSettings(model="m", max_model_len=1000, tokenizer=TokenizerName.BYTES)
        emulator = Emulator(settings)
        await emulator.start()
        try:
            return await Watched((emulator.url,)).round()
        finally:
            await emulator.stop()

    report = asyncio.run(scenario())
    (models,), (load,) = report.models, report.loads
    assert ((ModelReport("m", "", 1000),), (0, 0, 0.0)) == (models, (load.waiting, load.running, load.kv_usage))
    assert load.kv_tokens == 256_000
    assert (1, 1) == (report.asked, report.answered)


def test_a_server_that_stops_responding_is_remembered_for_a_while() -> None:
    """Its models are kept until they are too old, its load for some seconds; then nothing is known of the pool."""

    async def scenario(url: str) -> tuple[list[bool], Watched]:
        watched = Watched((url, "http://127.0.0.1:9"))  # nothing listens on port 9 (discard)
        await watched.round()
        return [], watched

    _, watched = serving(scenario)
    known = []
    for now_s in (1.0, 17.0, 19.0, 29.0, 31.0):  # the server has stopped; a round takes up to 6 s
        watched.now_s = now_s
        report = asyncio.run(watched.round())
        known.append((len(report.models), len(report.loads)))
    assert [(1, 1), (1, 1), (1, 0), (1, 0), (0, 0)] == known
    assert (2, 0) == (watched.published[-1].asked, watched.published[-1].answered)


def test_a_clock_that_jumps_back_expires_nothing() -> None:
    """A clock that jumps back by an hour expires no report."""

    async def scenario(url: str) -> bool:
        watched = Watched((url,), now_s=3_600.0)
        await watched.round()
        watched.now_s = 0.0
        return bool((await watched.round()).models)

    assert serving(scenario)


async def hang(_: web.Request) -> web.StreamResponse:
    """Never respond."""
    await asyncio.Event().wait()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    """Send more than the size limit of a page."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(2 * MAX_PAGE_BYTES // 65_536):
        await response.write(b"x" * 65_536)
    return response


async def refuse(_: web.Request) -> web.StreamResponse:
    """Respond with 404."""
    return web.Response(status=404)


@pytest.mark.parametrize("models", [b"<html>", b"", b"\xff\xfe", b'{"data": 5}', endless, refuse])
def test_a_server_whose_models_cannot_be_read_still_reports_its_load(models: bytes | Handler) -> None:
    """With an invalid, empty, oversized or missing list the models are unknown, but the load is known."""

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, models=models)
    assert ((), 1) == (report.models, len(report.loads))


@pytest.mark.parametrize("metrics", [b"<html>", b"vllm:num_requests_waiting NaN\n", endless, refuse])
def test_a_server_without_metrics_still_reports_its_models(metrics: bytes | Handler) -> None:
    """If the load cannot be read it is unknown, but the models are known."""

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, metrics=metrics)
    assert ("m", ()) == (report.models[0][0].name, report.loads)


def test_a_server_that_hangs_costs_its_timeout_and_no_more() -> None:
    """A page that never arrives is given up after the timeout; the server's other page is used."""

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,), timeout_s=1.0).round()

    report = serving(scenario, metrics=hang)
    assert (1, ()) == (len(report.models), report.loads)


def test_a_server_may_take_as_long_as_configured() -> None:
    """The HTTP client has no timeouts of its own that would cut `timeout_s` short."""

    async def scenario() -> object:
        async with make_client() as client:
            return client.timeout.as_dict()

    assert dict.fromkeys(("connect", "read", "write", "pool")) == asyncio.run(scenario())


def test_a_timeout_of_a_server_is_logged_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    """The log line names the page and the timeout."""

    async def scenario(url: str) -> str:
        await Watched((url,), timeout_s=0.05).round()
        return url

    url = serving(scenario, hang, hang)
    assert f"{url}/v1/models: no answer in 0.05 s" == caplog.records[0].__dict__["fields"]["first"]


def test_rounds_are_a_second_apart_with_ten_percent_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jitter keeps many routers that start together from polling in step."""
    waited_s: list[float] = []

    async def sleep(seconds: float) -> None:
        waited_s.append(seconds)
        if len(waited_s) == 30:
            raise InterruptedError

    async def scenario() -> None:
        monkeypatch.setattr("extproc.pools.watching.asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
        await Watched(()).watch.run()

    with pytest.raises(InterruptedError):
        asyncio.run(scenario())
    assert 0.9 <= min(waited_s) < 0.95
    assert 1.05 < max(waited_s) <= 1.1


def test_each_address_of_a_name_is_a_server() -> None:
    """Every address of a headless service is polled, up to a limit of 256."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return [*(f"10.0.{n // 250}.{n % 250}" for n in range(500)), "fd00::1"]

    found = asyncio.run(endpoints(Endpoints(dns="http://vllm-short:8000"), 1, resolve))
    assert (256, "http://10.0.0.0:8000") == (len(found), found[0])


def test_an_ipv6_address_is_put_in_brackets() -> None:
    """Otherwise the port could not be distinguished from the address."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return ["fd00::1"]

    assert ("http://[fd00::1]:80",) == asyncio.run(endpoints(Endpoints(dns="http://vllm"), 1, resolve))


@pytest.mark.parametrize(
    ("addresses", "polled"),
    [
        (["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"], ["http://10.0.0.1:80", "http://10.0.0.2:80"]),
        (["fd00::1", "fd00::1", "10.0.0.1"], ["http://10.0.0.1:80"]),
        (["fd00::1", "10.0.0.1", "10.0.0.2"], ["http://10.0.0.1:80", "http://10.0.0.2:80", "http://[fd00::1]:80"]),
        (["fd00::1", "fd00::2"], ["http://[fd00::1]:80", "http://[fd00::2]:80"]),
    ],
    ids=["both", "duplicate", "mixed", "IPv6"],
)
def test_a_server_with_ipv4_and_ipv6_addresses_is_polled_once(addresses: list[str], polled: list[str]) -> None:
    """Equally many IPv4 and IPv6 addresses belong to the same servers; otherwise each address is a server."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return addresses

    assert tuple(polled) == asyncio.run(endpoints(Endpoints(dns="http://vllm"), 1, resolve))


def test_a_name_that_does_not_resolve_keeps_the_known_servers() -> None:
    """A resolver that is down changes nothing about the known servers."""

    async def scenario(url: str) -> tuple[PoolReport, PoolReport]:
        watched = Watched((url,))
        before = await watched.round()
        watched.watch.where = Endpoints(dns="http://no-such-name.invalid:8000")
        return before, await watched.round()

    before, after = serving(scenario)
    assert before.models == after.models


def test_known_servers_are_polled_even_if_other_sources_fail() -> None:
    """All sources are used: a name that does not resolve, or a missing file, does not hide the URLs."""

    async def scenario(url: str) -> PoolReport:
        watched = Watched(())
        watched.watch.where = Endpoints((url,), dns="http://no-such-name.invalid:8000", file="/no/such/file")
        return await watched.round()

    assert 1 == serving(scenario).answered


def test_servers_in_a_file_are_read_each_time(tmp_path: Path) -> None:
    """The file has one URL per line; comments and empty lines are ignored; a missing file is an error."""
    file = tmp_path / "servers"
    file.write_text("# ours\nhttp://a:1/\n\n http://b:2\n")
    where = Endpoints(file=str(file))
    assert ("http://a:1", "http://b:2") == asyncio.run(endpoints(where, 1))
    file.unlink()
    with pytest.raises(AddressesUnknown, match="servers"):
        asyncio.run(endpoints(where, 1))


def test_a_file_that_is_empty_for_a_moment_keeps_the_known_servers(tmp_path: Path) -> None:
    """A program that rewrites the file truncates it first; a pool without servers would count as serving all."""
    file = tmp_path / "servers"

    async def scenario(url: str) -> list[int]:
        watched = Watched(())
        watched.watch.where = Endpoints(file=str(file))
        answered = []
        for text in (url, "", "# nothing\n", url):
            file.write_text(text)
            answered.append(len((await watched.round()).models))
        return answered

    assert [1, 1, 1, 1] == serving(scenario)


async def many_models(_: web.Request) -> web.StreamResponse:
    """List more models than the limit."""
    return web.json_response({"data": [{"id": f"adapter-{number}"} for number in range(5_000)]})


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (many_models, "5000 models; the first 1000 are read"),
        (refuse, "404"),
        (endless, "longer than 1048576 bytes"),
    ],
)
def test_unknown_models_are_logged_even_if_the_load_is_known(
    models: Handler, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line says that a server lists no models or too many; no line reports that its load is known."""

    async def scenario(url: str) -> None:
        watched = Watched((url,))
        for _ in range(2):
            assert (await watched.round()).loads

    serving(scenario, models)
    (record,) = caplog.records
    assert message in record.__dict__["fields"]["first"]


@pytest.mark.parametrize("host", ["", "a..b", "x" * 300, "no-such-name.invalid"])
def test_an_invalid_name_is_an_error(host: str) -> None:
    """Whichever way the resolver rejects the name, only AddressesUnknown is raised."""
    with pytest.raises(AddressesUnknown):
        asyncio.run(endpoints(Endpoints(dns=f"http://{host}:1"), 5))


def test_a_resolver_that_hangs_is_given_up() -> None:
    """A lookup takes its timeout and no more."""

    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(AddressesUnknown, match=r"no result in 0\.01 s"):
        asyncio.run(endpoints(Endpoints(dns="http://vllm"), 0.01, resolve))


def test_a_name_is_resolved_again_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server no longer behind the name is forgotten at once; a new one is known after its first round."""
    addresses: list[str] = []

    def resolved(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert "vllm.test" == host
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    async def scenario(url: str) -> list[tuple[int, int]]:
        watched = Watched(())
        watched.watch.where = Endpoints(dns=f"http://vllm.test:{url.rpartition(':')[2]}")
        seen = []
        for now in (["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]):
            addresses[:] = now
            report = await watched.round()
            seen.append((report.asked, len(report.models)))
        return seen

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    assert [(1, 1), (1, 0), (2, 1)] == serving(scenario)


def test_a_compressed_page_is_not_read() -> None:
    """No compressed page was asked for, and it could be a decompression bomb."""

    async def bomb(_: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(METRICS), headers={"content-encoding": "gzip"})

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, metrics=bomb)
    assert (1, ()) == (len(report.models), report.loads)


def test_connections_to_servers_that_are_no_longer_polled_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are kept to a limited number of servers, the ones polled last."""
    monkeypatch.setattr("extproc.pools.scraping.MAX_SERVERS", 1)

    async def scenario(url: str) -> tuple[int, set[str]]:
        other = url.replace("127.0.0.1", "localhost")
        async with make_client() as client:
            reports = [await Watched((each,)).watch.round(client) for each in (url, other, url)]
            transport: Any = client._transport
            return sum(report.answered for report in reports), set(transport._transports)

    answered, kept = serving(scenario)
    assert (3, 1) == (answered, len(kept))


def test_only_some_of_hundreds_of_addresses_are_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 servers 256 are polled, always the same ones, and at most 32 at a time."""
    asked: list[str] = []
    at_once = most = 0

    async def resolve(_host: str, _port: int) -> list[str]:
        return [f"10.{number // 250}.0.{number % 250}" for number in range(500)][:: 1 if len(asked) == 0 else -1]

    async def scrape(_client: object, url: str, *_: object) -> EndpointReport:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        asked.append(url)
        return EndpointReport(url, (ModelReport("m"),), LoadReport(0, 1, 0.0))

    async def known(where: Endpoints, timeout_s: float) -> tuple[str, ...]:
        return await endpoints(where, timeout_s, resolve)

    monkeypatch.setattr("extproc.pools.watching.endpoints", known)
    monkeypatch.setattr("extproc.pools.watching.scrape", scrape)
    watched = Watched(())
    watched.watch.where = Endpoints(dns="http://vllm:8000")
    reports = [asyncio.run(watched.round()) for _ in range(2)]
    assert [(256, 256, 256)] * 2 == [(each.asked, each.answered, len(each.models)) for each in reports]
    assert sorted(asked[:256]) == sorted(asked[256:])
    assert most <= MAX_AT_ONCE


def test_a_gigabyte_of_metrics_is_given_up_at_the_first_megabyte() -> None:
    """The connection is closed, so the server stops sending; its models are still known."""
    sent = 0

    async def gigabyte(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-length": str(1 << 30)})
        await response.prepare(request)
        for _ in range(1 << 14):
            await response.write(b"#" * (1 << 16))
            sent += 1 << 16
        return response

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, metrics=gigabyte)
    assert (1, 0) == (len(report.models), len(report.loads))
    assert sent < 1 << 26  # at most what socket buffers hold
