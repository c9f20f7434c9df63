"""Replies to requests that the router cannot decide in time."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest

from extproc.server.overload import ENOUGH_REQUESTS
from tests.grpc.served import App
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()


def start_shedding(app: App) -> None:
    """Make the router shed requests from now on, as when its loop lags."""
    app.ask(lambda: setattr(app._streams.overload, "sheds", lambda _now_s: True))


async def metrics(app: App) -> list[str]:
    """Return the lines of a scrape."""
    async with httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
        return (await client.get(f"http://{app.admin_address}/metrics")).text.splitlines()


def reasons(message: Any) -> list[str]:
    """Return the reason header that a reply sets."""
    options = message.request_headers.response.header_mutation.set_headers
    return [option.header.raw_value.decode() for option in options if option.header.key.endswith("reason")]


def without_marks(app: App, lag_s: float) -> None:
    """Fix what the router takes for its loop's delay."""

    def fix() -> None:
        overload: Any = app._streams.overload
        overload.wants_mark = lambda _now_s: False
        overload.lag_s = lag_s

    app.ask(fix)


def outcomes(app: App) -> tuple[int, int]:
    """Return how many requests count for readiness as decided in time, and as too late."""
    counted = app.ask(lambda: list(app._streams.overload._outcomes))
    return sum(each[1] for each in counted), sum(each[2] for each in counted)


def test_a_held_request_is_shed_at_its_headers(router: Router, call: type[Any]) -> None:
    """In STREAMED mode it goes to the default pool at once, without waiting for its body, and is counted."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            start_shedding(app)
            stream = call(channel)
            await stream.headers()
            assert ["shed"] == reasons(await stream.read())
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            assert "dualpool_shed_requests_total 1.0" in await metrics(app)
            assert (0, 1) == outcomes(app)

    asyncio.run(scenario())


@pytest.mark.parametrize(("lag_s", "late"), [(0.0, 0), (0.01, 1)])
def test_a_deadline_counts_against_readiness_only_if_the_loop_lagged(
    router: Router, call: type[Any], lag_s: float, late: int
) -> None:
    """Clients that send slowly do not make a router unready."""

    async def scenario() -> None:
        async with (
            router("exchange: {deadline_ms: 10}") as app,
            grpc.aio.insecure_channel(app.grpc_address) as channel,
        ):
            without_marks(app, lag_s)
            stream = call(channel)
            await stream.headers()
            assert ["deadline"] == reasons(await stream.read())
            assert (0, late) == outcomes(app)

    asyncio.run(scenario())


def test_the_wait_in_the_queue_is_observed(router: Router, call: type[Any], eventually: Any) -> None:
    """A request in time counts as such, and the time that its call waited for the loop is in the metrics."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(CHAT)
            assert ["fits"] == reasons(await stream.read())
            await eventually(lambda: app.ask(lambda: app._streams.overload._marked_s) is None)
            (waits,) = [line for line in await metrics(app) if line.startswith("dualpool_queue_seconds_count ")]
            assert float(waits.split()[1]) == 1
            assert (1, 0) == outcomes(app)

    asyncio.run(scenario())


def test_a_deadline_is_measured_from_the_arrival_of_the_request(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waited for the loop past its deadline is decided at once; the metrics include its wait."""

    async def scenario() -> None:
        async with (
            router("exchange: {deadline_ms: 60000}") as app,
            grpc.aio.insecure_channel(app.grpc_address) as channel,
        ):
            overload = app._streams.overload

            def late() -> None:
                monkeypatch.setattr(overload, "wants_mark", lambda _now_s: False)
                overload.lag_s = 31.0  # counted twice: for the call, and for its first message

            app.ask(late)
            stream = call(channel)
            await stream.headers()
            assert ["deadline"] == reasons(await stream.read())
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            (waited,) = [line for line in await metrics(app) if line.startswith("dualpool_decision_seconds_sum ")]
            assert float(waited.split()[1]) > 62

    asyncio.run(scenario())


def test_headers_of_a_response_that_waited_for_the_loop_wait_no_longer(router: Router, call: type[Any]) -> None:
    """The gateway's timer runs since it sent them: they are replied to at once. Readiness is not affected."""

    async def scenario() -> None:
        async with (
            router("exchange: {deadline_ms: 60000}") as app,
            grpc.aio.insecure_channel(app.grpc_address) as channel,
        ):
            stream = call(channel)
            await stream.headers()
            await stream.body(CHAT)
            assert ["fits"] == reasons(await stream.read())
            assert (await stream.read()).HasField("request_body")
            without_marks(app, 61.0)
            await stream.response_headers()
            assert (await stream.read()).HasField("response_headers")
            assert (1, 0) == outcomes(app)

    asyncio.run(scenario())


def test_in_buffered_mode_the_stream_is_closed(router: Router, call: type[Any]) -> None:
    """A clean close is enough: without a decision the request takes the default route, to the default pool."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            start_shedding(app)
            stream = call(channel)
            await stream.headers(mode="BUFFERED")
            assert [] == reasons(await stream.read())
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


def test_a_full_duplex_body_is_echoed_completely(router: Router, call: type[Any]) -> None:
    """Even if the request is shed, every byte is echoed before the stream is closed."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            start_shedding(app)
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            assert ["shed"] == reasons(await stream.read())
            await stream.body(CHAT)
            echoed = (await stream.read()).request_body.response.body_mutation.streamed_response
            assert (CHAT, True) == (echoed.body, echoed.end_of_stream)
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


def test_requests_to_other_paths_are_not_shed(router: Router, call: type[Any]) -> None:
    """A request to a path that is not ours is not shed: deciding it costs nothing."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            start_shedding(app)
            stream = call(channel)
            await stream.headers("/v1/other")
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            assert "dualpool_shed_requests_total 0.0" in await metrics(app)

    asyncio.run(scenario())


def test_readiness_turns_red_when_most_requests_come_too_late(
    router: Router, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It turns green again when that is over; the router keeps serving throughout."""
    monkeypatch.setattr("extproc.server.app.JUDGES_EVERY_S", 0.01)

    async def scenario() -> None:
        async with router() as app:
            overload = app._streams.overload
            await eventually(lambda: app._health.ready)

            def late() -> None:
                for _ in range(ENOUGH_REQUESTS):
                    overload.count(in_time=False, now_s=1e9)

            monkeypatch.setattr(overload, "mostly_late", lambda _now_s: type(overload).mostly_late(overload, 1e9))
            app.ask(late)
            await eventually(lambda: not app._health.ready)
            assert "dualpool_ready 0.0" in await metrics(app)
            app.ask(overload._outcomes.clear)
            await eventually(lambda: app._health.ready)

    asyncio.run(scenario())


def test_counters_with_known_labels_start_at_zero(router: Router) -> None:
    """Counters whose label values are known exist before the first event, and dualpool_info names the build."""

    async def scenario() -> None:
        async with router() as app:
            lines = await metrics(app)
            assert 'dualpool_streams_undecided_total{cause="gateway_left"} 0.0' in lines
            assert 'dualpool_retried_total{pool="short"} 0.0' in lines
            assert 'dualpool_bodies_not_understood_total{cause="encoded"} 0.0' in lines
            assert any(line.startswith("dualpool_info{config_hash=") and line.endswith(" 1.0") for line in lines)
            assert [] == [line for line in lines if "_created" in line]

    asyncio.run(scenario())


def test_a_gateway_that_leaves_before_the_decision_is_counted(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """A stream that ends undecided is counted with its cause."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(CHAT[:5], end=False)
            await eventually(lambda: any(each.waits for each in app._streams.open))
            stream.stub.cancel()
            await eventually(lambda: not app._streams.open)
            assert 'dualpool_streams_undecided_total{cause="gateway_left"} 1.0' in await metrics(app)

    asyncio.run(scenario())
