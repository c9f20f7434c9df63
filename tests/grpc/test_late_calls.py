"""What comes late: a deadline after a stream has ended, and calls after the router has begun to stop."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.grpc.served import CHAT

Router = Callable[..., Any]
WITHIN_S = 5.0
WATCH = "/grpc.health.v1.Health/Watch"
LOGS = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


def as_is(message: bytes) -> bytes:
    """Return a message, which is already bytes."""
    return message


def test_a_stream_that_has_ended_decides_nothing(router: Router, call: type[Any], eventually: Any) -> None:
    """After the gateway has left, neither the deadline nor a drain counts a decision for it."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await eventually(lambda: any(each.waits for each in app._streams.open))

            def leaves() -> bool:
                (served,) = app._streams.open
                served.on_end()
                waits: bool = served.waits
                served.on_deadline()
                served.drain()
                return waits

            assert not app.ask(leaves)
            await app.calls_over()
            streams, requests = app._streams.metrics.streams, app._streams.metrics.requests
            assert (1, 0) == (sum(streams.values()), sum(requests.values()))

    asyncio.run(scenario())


def test_a_request_that_comes_after_the_drain_is_decided_and_not_kept(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """A stream whose first message is still under way when the router stops does not wait for the response."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await eventually(lambda: bool(app._streams.open))
            app.ask(app._streams.drain)
            await stream.headers()
            await stream.body(CHAT)
            decided = await stream.read()
            assert "fits" == decided.dynamic_metadata.fields["dualpool"].struct_value.fields["reason"].string_value
            assert await stream.read() is None
            assert grpc.StatusCode.OK == await stream.code()

    asyncio.run(scenario())


@pytest.mark.parametrize("method", [WATCH, LOGS])
def test_calls_that_come_after_the_drain_end_at_once(router: Router, method: str) -> None:
    """A watch or a log stream that begins while the router stops does not delay the stop."""

    async def scenario() -> None:
        settings = "learning: {source: access_log}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            app.ask(app._health.end)
            app.ask(app._access_logs.drain)
            late: Any = channel.stream_stream(method, as_is, as_is)(None)
            async with asyncio.timeout(WITHIN_S):
                if method == WATCH:
                    await late.write(b"")
                while await late.read():
                    pass
                assert grpc.StatusCode.OK == await late.code()

    asyncio.run(scenario())
