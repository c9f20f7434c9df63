"""The gRPC health service."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.grpc.messages import Router


def test_health_responds_by_every_name_and_turns_at_a_drain(router: Router) -> None:
    """All names are SERVING; while draining, all but liveness are NOT_SERVING."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def status(name: str) -> int:
                response = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                return int(response.status)

            names = ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"]
            assert [1, 1, 1, 1] == [await status(name) for name in names]
            app.turn_unready()
            assert [2, 1, 2, 2] == [await status(name) for name in names]

    asyncio.run(scenario())


def test_a_health_watch_reports_each_change_and_ends_at_a_stop(router: Router) -> None:
    """A watch reports the current status at once, then each change, and ends with OK when the router stops."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            ready, unknown = (stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "nobody"))
            assert [1, 3] == [(await asyncio.wait_for(watch.read(), 10)).status for watch in (ready, unknown)]
            app.turn_unready()
            assert 2 == (await asyncio.wait_for(ready.read(), 10)).status
            await app.stop()
            assert [grpc.StatusCode.OK] * 2 == [await watch.code() for watch in (ready, unknown)]

    asyncio.run(scenario())


def test_a_watcher_that_leaves_is_forgotten(router: Router, eventually: Any) -> None:
    """A cancelled watch leaves nothing behind."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await asyncio.wait_for(watch.read(), 10)
            assert 1 == len(app._health._watchers)
            watch.cancel()
            await eventually(lambda: not app._health._watchers and not app._core._calls)

    asyncio.run(scenario())


def test_health_of_an_unknown_service_and_of_an_invalid_request(router: Router) -> None:
    """Check answers NOT_FOUND for an unknown name, and INVALID_ARGUMENT for bytes that are not a request."""

    async def code(channel: grpc.aio.Channel, message: bytes) -> grpc.StatusCode:
        raw: Any = channel.unary_unary  # the stubs require serializers
        try:
            await raw("/grpc.health.v1.Health/Check")(message)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            assert grpc.StatusCode.NOT_FOUND == await code(channel, b"\x0a\x01x")
            assert grpc.StatusCode.INVALID_ARGUMENT == await code(channel, b"\xff")

    asyncio.run(scenario())
