"""Polling servers for their models and load, including slow ones and ones that send nonsense or too much."""

import asyncio
import gzip
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from extproc.emulator import Emulator, EmulatorSettings
from extproc.emulator.settings import TokenizerName
from extproc.pools.reports import ModelReport
from extproc.pools.scraping import MAX_PAGE_BYTES, make_client
from extproc.pools.watching import PoolReport
from tests.grpc.watched import METRICS, MODELS, Handler, Watched, serving


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


def test_servers_are_asked_directly_and_without_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the environment sees what a pool serves, and no server is invited to send a bomb."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    wanted = []

    async def models(request: web.Request) -> web.StreamResponse:
        wanted.append(request.headers["accept-encoding"])
        return web.Response(body=MODELS)

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    assert 1 == serving(scenario, models).answered
    assert ["identity"] == wanted


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


def test_a_server_with_dozens_of_engines_reports_its_load() -> None:
    """With data parallelism a page of metrics has megabytes, of which a few lines are read, wherever they are."""
    other = b"".join(
        b'vllm:e2e_request_latency_seconds_bucket{engine="%d",le="1.0"} 0.0\n' % n for n in range(500)
    )
    engine = b'vllm:num_requests_waiting{engine="%d"} 1.0\nvllm:num_requests_running{engine="%d"} 2.0\n'
    large = b"".join(other + engine % (number, number) for number in range(64))
    assert len(large) > 2 * MAX_PAGE_BYTES

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    (load,) = serving(scenario, metrics=large).loads
    assert (64, 128) == (load.waiting, load.running)


def test_a_page_of_megabytes_that_would_have_to_be_read_is_given_up() -> None:
    """What is kept of a page of metrics is bounded, too."""
    large = b'vllm:num_requests_waiting{reason="x"} 3\n' * 40_000

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, metrics=METRICS + large)
    assert (1, 0) == (len(report.models), len(report.loads))


@pytest.mark.parametrize("end", [b"#", b"\n"], ids=["one line", "lines"])
def test_a_gigabyte_of_metrics_is_given_up_at_the_first_megabytes(end: bytes) -> None:
    """The connection is closed, so the server stops sending; its models are still known."""
    sent = 0
    line = b"#" * 63 + end

    async def gigabyte(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-length": str(1 << 30)})
        await response.prepare(request)
        for _ in range(1 << 14):
            await response.write(line * (1 << 10))
            sent += 1 << 16
        return response

    async def scenario(url: str) -> PoolReport:
        return await Watched((url,)).round()

    report = serving(scenario, metrics=gigabyte)
    assert (1, 0) == (len(report.models), len(report.loads))
    assert sent < 1 << 26  # at most what socket buffers hold
