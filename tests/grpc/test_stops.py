"""What a stop does to open streams: each ends, and a body is cut only if it goes on for too long."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from extproc.config.loading import parse
from extproc.server import app as app_module
from tests.grpc.messages import Router, chat, echo, mutation
from tests.grpc.served import WITHIN_S, App
from tests.grpc.slow_reader import SlowReader


def test_a_router_that_drains_stays_unready(eventually: Any) -> None:
    """That it decides requests in time does not bring the gateway back; a second call to end skips the wait."""

    async def scenario() -> None:
        app = App(parse("{listen: {address: '127.0.0.1:0'}, admin: {address: '127.0.0.1:0'}, drain_s: 3600}"))
        await app.start()
        try:
            await eventually(lambda: app._health.ready)
            app.end()
            await eventually(lambda: not app._health.ready)
            app.ask(lambda: app._judge(time.monotonic()))
            assert not app._health.ready
            app.end()
            assert app._at_once
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_a_router_that_drains_serves_for_its_drain_time(
    call: type[Any], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are decided until drain_s have passed; then the router ends by itself."""
    passed_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: passed_s)

    async def scenario() -> None:
        nonlocal passed_s
        app = App(parse("{listen: {address: '127.0.0.1:0'}, admin: {address: '127.0.0.1:0'}, drain_s: 30}"))
        await app.start()
        try:
            await eventually(lambda: app._health.ready)
            monkeypatch.setattr(app_module, "time", clock)
            app.end()
            await eventually(lambda: not app._health.ready)
            passed_s = 29.9
            async with grpc.aio.insecure_channel(app.grpc_address) as channel:
                stream = call(channel)
                await stream.headers()
                await stream.body(chat())
                assert await stream.read() is not None
            passed_s = 30.0
            await eventually(lambda: not app._thread.is_alive())
        finally:
            await app.stop()

    asyncio.run(scenario())


def test_a_stop_returns_cleanly_from_waiting_streams(
    router: Router, call: type[Any], eventually: Callable[..., Any]
) -> None:
    """A stream kept for its response ends with OK when the router stops: the response, whose headers are held,
    continues without us.
    """

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await stream.body(chat())
            replied_to = [(await stream.read()).WhichOneof("response") for _ in range(2)]
            assert replied_to == ["request_headers", "request_body"]
            await stream.response_headers()
            await eventually(lambda: any(each.waits for each in app._streams.open))
            await app.stop()
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


@pytest.mark.parametrize("busy", ["extproc.state.keeper.Saver.save", "extproc.server.reload.Reloader.look"])
def test_a_stop_answers_requests_while_other_threads_end(
    busy: str, call: type[Any], eventually: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A save to a slow disk, or a reload, ends when it can: no request waits for it."""
    begun, ended, join = threading.Event(), threading.Event(), threading.Thread.join

    def hang(*_: object, **__: object) -> None:
        begun.set()
        ended.wait()

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        ended.wait()  # whatever the limit: the loop must not join a thread at all
        join(thread, timeout)

    async def scenario() -> None:
        state = f"state: {{path: {tmp_path}/state, every_s: 0.05}}"
        app = App(parse(f"{{listen: {{address: '127.0.0.1:0'}}, admin: {{address: '127.0.0.1:0'}}, {state}}}"))
        monkeypatch.setattr(busy, hang)
        monkeypatch.setattr(threading.Thread, "join", joined)
        app.reload()
        await app.start()
        async with grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            try:
                await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
                await stream.read()
                assert await asyncio.to_thread(begun.wait, WITHIN_S)
                app.end(at_once=True)
                await eventually(lambda: app._streams.draining)
                await stream.body(b"all of it")
                assert b"all of it" == echo(await stream.read())
            finally:
                ended.set()
                stream.stub.cancel()
                await app.stop()

    asyncio.run(scenario())


def test_a_stop_waits_for_a_full_duplex_body(router: Router, call: type[Any]) -> None:
    """In full duplex mode a stopping router echoes the body to its end before it closes: no byte is lost."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.read()
            stopping = asyncio.ensure_future(app.stop())
            await stream.body(b"first", end=False)
            assert b"first" == echo(await stream.read())
            await stream.body(b"last")
            assert b"last" == echo(await stream.read())
            assert grpc.StatusCode.OK == await stream.code()
            await stopping

    asyncio.run(scenario())


def test_a_stop_cuts_a_full_duplex_body_that_does_not_end(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body still under way after the time for the last streams fails: the gateway must not take it for whole."""
    monkeypatch.setattr(app_module, "LAST_STREAMS_S", 0.0)

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.read()
            await stream.body(b"first", end=False)
            assert b"first" == echo(await stream.read())
            await app.stop()
            assert grpc.StatusCode.OK != await stream.code()

    asyncio.run(scenario())


def test_a_stop_ends_without_time_for_anything(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that is paused for longer than its stop may take, as a machine that moves is, ends all the same."""
    monkeypatch.setattr(app_module, "LAST_STREAMS_S", 0.0)
    monkeypatch.setattr(app_module, "CANCELLED_WITHIN_S", 0.0)

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.read()
            await app.stop()
            assert grpc.StatusCode.OK != await stream.code()

    asyncio.run(scenario())


def test_a_stop_while_a_full_duplex_body_goes_back_cuts_nothing(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """Chunks of the last message that are not yet written are written before the stream ends."""
    body = b'{"pad":"' + b"a" * 8_000_000 + b'",' + chat()[1:]

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.read()
            (served,) = app._streams.open
            await stream.body(body[:5], end=False)
            assert body[:5] == echo(await stream.read())
            await stream.body(body[5:])
            # The gateway reads nothing, so the router is in the middle of its writes.
            await eventually(lambda: not served._exchange._duplex.under_way)
            stopping = asyncio.ensure_future(app.stop())
            await eventually(lambda: app._streams.draining)
            back = body[:5]
            while (reply := await stream.read()) is not None:
                back += echo(reply)
            assert body == back
            assert grpc.StatusCode.OK == await stream.code()
            await stopping

    asyncio.run(scenario())


def test_a_stop_cuts_nothing_that_the_gateway_reads_late(router: Router) -> None:
    """Replies that are still in the kernel arrive, even if the gateway says something after the last of them.

    A connection that was closed by then would be reset, and the kernel would drop what the gateway has not read.
    """
    body = b"a" * 1_000_000

    async def scenario() -> None:
        async with router() as app:
            gateway = await asyncio.to_thread(SlowReader, app.grpc_address)
            try:
                await asyncio.to_thread(gateway.ask, body)
                (served,) = app._streams.open
                stopping = asyncio.ensure_future(app.stop())
                await asyncio.to_thread(gateway.answer_goaways)
                gateway.open_window()
                async with asyncio.timeout(10):
                    while served in app._streams.open:  # noqa: ASYNC110  (the router is on another thread)
                        await asyncio.sleep(0.005)
                gateway.ping()
                assert body == await asyncio.to_thread(gateway.rest)
                assert b"0" == gateway.grpc_status
            finally:
                gateway.close()
            await stopping

    asyncio.run(scenario())


def test_a_stop_does_not_wait_for_the_response_to_a_full_duplex_body(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """A stream kept for its response ends with OK as soon as the whole body has been echoed."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(chat()[:9], end=False)
            await eventually(lambda: len(app._streams.open) == 1)
            stopping = asyncio.ensure_future(app.stop())
            await stream.body(chat()[9:])
            assert mutation(await stream.read())["x-token-budget-reason"] == "fits"
            assert [chat()[:9], chat()[9:]] == [echo(await stream.read()) for _ in range(2)]
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()
            await stopping

    asyncio.run(scenario())
