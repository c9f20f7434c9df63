"""Servers of pools, addresses and faults of our own that must not stop the watching of pools."""

import asyncio
import logging
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from aiohttp import web

from extproc.core.placing.pool import Endpoints
from extproc.pools.scraping import ScrapeFailed, make_client, scrape
from extproc.pools.settings import WatchSettings
from extproc.pools.watching import PoolReport, PoolWatch
from tests.grpc.test_spill_over import Router, Server, shown
from tests.grpc.test_spill_over import serving as serving_pools
from tests.grpc.watched import MODELS, Watched, serving


def watching(where: Endpoints, *, needs_load: bool = False) -> PoolWatch:
    """Return a watch of these servers, to be run round by round."""
    settings = WatchSettings(timeout_s=60)
    return PoolWatch(
        "short", where, settings, lambda: None, lambda _: None, float, Random(0), needs_load=needs_load
    )


async def round_of(watch: PoolWatch) -> PoolReport:
    """Run one round."""
    async with make_client() as client:
        return await watch.round(client)


@pytest.mark.parametrize(
    "line", ["http://127.0.0.1:99999", "http://[::1", "ftp://a", "servers", "http://:0", "\x01"]
)
def test_a_bad_line_in_a_file_is_a_silent_server(line: str, tmp_path: Path) -> None:
    """Whatever a line contains, the servers in the others are asked."""

    async def scenario(url: str) -> PoolReport:
        (tmp_path / "servers").write_text(f"{url}\n{line}\n")
        return await round_of(watching(Endpoints(file=str(tmp_path / "servers"))))

    report = serving(scenario)
    assert (2, 1) == (report.asked, report.answered)


def test_a_password_in_an_address_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file of addresses may contain one, and a server that fails is named in the log."""
    (tmp_path / "servers").write_text("http://operator:secret@127.0.0.1:9\n")
    asyncio.run(round_of(watching(Endpoints(file=str(tmp_path / "servers")))))
    (said,) = [record.fields["first"] for record in caplog.records]  # type: ignore[attr-defined]
    assert "***@127.0.0.1:9" in said
    assert "secret" not in said


def test_servers_that_fail_now_and_then_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of many servers, some fail in every other round: one line says so, and one that all are well, a minute after
    the last failure.
    """
    caplog.set_level(logging.INFO)
    fails = False

    async def now_and_then(_: web.Request) -> web.StreamResponse:
        return web.Response(status=500) if fails else web.Response(body=MODELS)

    async def scenario(url: str) -> None:
        nonlocal fails
        watched = Watched((url,))
        for number in range(21):
            fails = number % 2 == 0
            watched.now_s = float(number)
            await watched.round()
        fails = False
        for watched.now_s in (50.0, 79.0, 80.0, 81.0):
            await watched.round()
            lines.append(sum(each.name == "dualpool" for each in caplog.records))

    lines: list[int] = []
    serving(scenario, now_and_then)
    assert ["WARNING", "INFO"] == [each.levelname for each in caplog.records if each.name == "dualpool"]
    assert [1, 1, 2, 2] == lines


@pytest.mark.parametrize("path", ["", "/" + "x" * 1_000])
def test_a_long_failure_is_cut(path: str) -> None:
    """Neither an exception's text nor an address can make a log line longer than 300 characters of it."""

    async def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no " * 1_000, request=request)

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
            await scrape(client, f"http://server{path}", 60)

    with pytest.raises(ScrapeFailed) as failed:
        asyncio.run(scenario())
    assert 300 == len(str(failed.value))
    assert str(failed.value).startswith("http://server/")


def test_cookies_are_not_sent_back() -> None:
    """A server that sets cookies gets the same request in each round."""
    sizes = []

    async def models(request: web.Request) -> web.StreamResponse:
        sizes.append(len(request.raw_headers))
        response = web.Response(body=MODELS)
        response.set_cookie(f"name{len(sizes)}", "value")
        return response

    async def scenario(url: str) -> None:
        watch = watching(Endpoints((url,)))
        async with make_client() as client:
            for _ in range(3):
                await watch.round(client)

    serving(scenario, models=models)
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize(("needs_load", "answered"), [(False, 1), (True, 0)])
@pytest.mark.parametrize("metrics", [b"no metrics", b""])
def test_a_server_without_load_is_silent_if_its_load_is_needed(
    metrics: bytes, answered: int, caplog: pytest.LogCaptureFixture, *, needs_load: bool
) -> None:
    """With spill-over, a server that lists its models but does not report its load is logged and counted."""

    async def scenario(url: str) -> PoolReport:
        return await round_of(watching(Endpoints((url,)), needs_load=needs_load))

    report = serving(scenario, metrics=metrics)
    assert (1, answered, 1) == (report.asked, report.answered, len(report.models))
    assert needs_load is any("/metrics" in str(getattr(each, "fields", "")) for each in caplog.records)


def test_a_server_without_load_hides_no_other_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """The log line counts both, and names the one that cannot be reached."""

    async def scenario(url: str) -> PoolReport:
        return await round_of(watching(Endpoints((url, "http://127.0.0.1:9")), needs_load=True))

    serving(scenario, metrics=b"no metrics")
    (fields,) = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert 2 == fields["failed"]
    assert "127.0.0.1:9/" in fields["first"]


def test_spillover_needs_the_load(router: Router, eventually: Any) -> None:
    """A running router with `spill.enabled` counts a server without load as silent."""

    async def scenario() -> None:
        async with serving_pools(Server(raw=MODELS), Server()) as settings, router(settings) as app:
            await eventually(lambda: shown(app, "pool_answered", "long") == 1)
            await eventually(lambda: shown(app, "pool_models", "short") == 1)
            assert shown(app, "pool_answered", "short") == 0

    asyncio.run(scenario())


def test_a_fault_of_our_own_makes_one_pool_silent(
    router: Router, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception while a pool is watched is counted; the pool counts as silent until a round succeeds again, and
    the other pools are watched all the time.
    """
    failing = False
    finished = PoolWatch._urls

    async def urls(watch: PoolWatch) -> Any:
        if failing and watch.pool == "short":
            raise ZeroDivisionError
        return await finished(watch)

    monkeypatch.setattr(PoolWatch, "_urls", urls)
    monkeypatch.setattr("extproc.server.watch.AGAIN_AFTER_S", 0.01)
    begun = []
    watched = PoolWatch.run

    def run(watch: PoolWatch) -> Any:
        begun.append(watch.pool)
        return watched(watch)

    monkeypatch.setattr(PoolWatch, "run", run)

    async def scenario() -> None:
        nonlocal failing
        async with serving_pools(Server(), Server()) as settings, router(settings) as app:
            await eventually(
                lambda: shown(app, "pool_answered", "short") == shown(app, "pool_answered", "long") == 1
            )
            failing = True
            await eventually(lambda: shown(app, "pool_answered", "short") == 0)
            await eventually(lambda: app._streams.metrics.exceptions.get(("ZeroDivisionError",), 0) > 1)
            assert shown(app, "pool_answered", "long") == 1
            failing = False
            await eventually(lambda: shown(app, "pool_answered", "short") == 1)

    asyncio.run(scenario())
    assert 1 == begun.count("long")
