"""No failure of this program may fail a request: how a stream handles an exception in our own code."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

from extproc.server.grpc_core import Call
from extproc.server.grpc_private import NO_FLAGS, TIMEOUT, Receive
from extproc.server.grpc_server import ACCEPTED_AT_ONCE
from tests.grpc.served import USAGE, App

Router = Callable[..., Any]
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}).encode()
# What a write raises if its stream is over.
OVER = (grpc.aio.AioRpcError, asyncio.InvalidStateError)


def failures(app: App) -> float:
    """Return how many exceptions raised by Broken the metric has counted."""
    return app._streams.metrics.exceptions["KeyError",]


async def ended(stream: Any) -> grpc.StatusCode:
    """Return the status code that a stream ends with, ignoring its replies."""
    try:
        while await stream.read() is not None:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    code: grpc.StatusCode = await stream.code()
    return code


async def serves(stream: Any) -> None:
    """Fail unless the router decides a request on this stream."""
    await stream.headers()
    await stream.body(CHAT)
    assert await stream.read() is not None


def raises(*_arguments: Any, **_named: Any) -> None:
    """Raise; it replaces a method."""
    raise KeyError("a fault of ours")


class Broken:
    """Replaces a method; raises after the first `works` calls."""

    def __init__(self, method: Any, *, works: int = 0) -> None:
        self._method = method
        self._works = works

    def __call__(self, argument: Any) -> Any:
        """Call the method, or raise."""
        self._works -= 1
        if self._works < 0:
            raise KeyError("a fault of ours")
        return self._method(argument)


@pytest.mark.parametrize("mode", ["STREAMED", "BUFFERED"])
@pytest.mark.parametrize("method", ["first", "next"])
def test_a_failure_to_decode_closes_the_stream_with_ok(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch, mode: str, method: str
) -> None:
    """If our decoder fails on any message, the stream ends with OK and the exception is counted."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            decoder = app._streams.routing.decoder
            monkeypatch.setattr(decoder, method, Broken(getattr(decoder, method)))
            stream = call(channel)
            await stream.headers(mode=mode)
            if method == "next":  # with "first" the stream has ended already, and must not be written to
                await stream.body(CHAT)
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["STREAMED", "BUFFERED"])
def test_a_failure_to_encode_closes_the_stream_with_ok(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """If a decision cannot be encoded, the request continues undecided."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode, works=mode == "BUFFERED"))
            stream = call(channel)
            await stream.headers(mode=mode)
            await stream.body(CHAT)
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_at_the_deadline_closes_the_stream_with_ok(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the deadline's replies cannot be encoded, the held request continues at once, not at the next message."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode))
            stream = call(channel)
            await stream.headers()
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


@pytest.mark.parametrize("end", [False, True])
def test_a_failure_within_a_full_duplex_body_ends_the_stream_with_internal(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch, *, end: bool
) -> None:
    """A clean close would silently truncate a full-duplex body, even at its end: the stream ends with INTERNAL."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode, works=1))
            stream = call(channel)
            await stream.headers("/v1/other", mode="FULL_DUPLEX_STREAMED")
            await stream.body(b"a piece", end=end)
            assert grpc.StatusCode.INTERNAL == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_at_the_deadline_of_a_full_duplex_body_ends_with_internal(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunks held at that time cannot be echoed: the stream ends with INTERNAL."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            encoder = app._streams.routing.encoder
            monkeypatch.setattr(encoder, "encode", Broken(encoder.encode))
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(CHAT[:9], end=False)
            assert grpc.StatusCode.INTERNAL == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_after_a_full_duplex_body_closes_the_stream_with_ok(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole request was echoed and responses are not echoed through us, so closing loses nothing."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            decoder = app._streams.routing.decoder
            monkeypatch.setattr(decoder, "next", Broken(decoder.next, works=1))
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(CHAT)
            assert (await stream.read()).HasField("request_headers")
            assert (await stream.read()).HasField("request_body")
            await stream.response_headers()
            assert grpc.StatusCode.OK == await ended(stream)
            assert 1 == failures(app)

    asyncio.run(scenario())


def test_a_failure_to_learn_affects_no_reply(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has the whole response by then: the exception is counted, and the stream has ended with OK."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            monkeypatch.setattr(app.router.learner, "learn", raises)
            stream = call(channel)
            await stream.headers()
            await stream.body(CHAT)
            await stream.response_headers()
            await stream.response_body(USAGE, end=False)
            assert grpc.StatusCode.OK == await ended(stream)
            await app.calls_over()
            assert (1, 0) == (failures(app), len(app._streams.open))
            assert 1 == app.registry.get_sample_value("dualpool_processing_seconds_count")

    asyncio.run(scenario())


def test_a_handler_that_raises_leaves_nothing(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception outside an exchange ends its stream with an error, and the stream no longer counts as open."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            monkeypatch.setattr(app._streams.overload, "count", raises)
            stream = call(channel)
            await stream.headers()
            await stream.body(CHAT)
            assert grpc.StatusCode.INTERNAL == await ended(stream)
            await app.calls_over()
            assert (0, {}) == (len(app._streams.open), app.router.learner.budget._open)

    asyncio.run(scenario())


def test_an_exception_at_the_end_does_not_end_the_stop(
    router: Router,
    call: type[Any],
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A router whose last streams raise when they are cancelled still saves what it has learned, and stops."""
    monkeypatch.setattr("extproc.server.app.LAST_STREAMS_S", 0.0)
    monkeypatch.setattr("extproc.server.streams.Exchange.end", raises)

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await stream.body(CHAT[:9], end=False)
            await eventually(lambda: any(each.waits for each in app._streams.open))

    caplog.set_level("INFO")
    asyncio.run(scenario())
    said = [record.getMessage() for record in caplog.records]
    assert [True, True] == [any(start in each for each in said) for start in ("exception in", "stopped")]


def test_a_batch_that_grpc_refuses_ends_no_other_call(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the library refuses what we submit (a second receive), its stream ends, and the next one is served."""
    serve: list[Callable[[Call], None]] = []

    def broken(handled: Call) -> None:
        serve[0](handled)
        for _ in range(2):
            handled._submit((handled, (Receive(NO_FLAGS),), lambda _event: None))

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            with monkeypatch.context() as patched:
                serve.append(app._streams.serve)
                patched.setattr(app._streams, "serve", broken)
                assert grpc.StatusCode.INTERNAL == await call(channel).code()
                await app.calls_over()
                assert not app._streams.open
            await serves(call(channel))

    asyncio.run(scenario())


class Losing:
    """A completion queue that loses the next event, as for lack of memory for its message."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.loses = False

    def poll(self, deadline: float) -> Any:
        """Return the next event, or lose it."""
        event = self._queue.poll(deadline)
        if self.loses and event.completion_type != TIMEOUT:
            self.loses = False
            raise MemoryError
        return event

    def shutdown(self) -> None:
        """Shut the real queue down."""
        self._queue.shutdown()


def test_a_lost_message_ends_its_call(
    router: Router, call: type[Any], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If there is no memory for a message, its stream is cancelled and does not wait; later ones are served."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            queue = Losing(app._core._queue)
            monkeypatch.setattr(app._core, "_queue", queue)
            stream = call(channel)
            await stream.headers(mode="FULL_DUPLEX_STREAMED")
            await eventually(lambda: len(app._streams.open) == 1)
            queue.loses = True
            with suppress(*OVER):
                await stream.body(CHAT, end=False)
            assert grpc.StatusCode.OK != await ended(stream)
            await app.calls_over()
            assert not app._streams.open
            await serves(call(channel))

    asyncio.run(scenario())


def test_lost_calls_cost_no_place(
    router: Router, call: type[Any], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often there is no memory for a new call, the next one is accepted."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            queue = Losing(app._core._queue)
            monkeypatch.setattr(app._core, "_queue", queue)
            for _ in range(ACCEPTED_AT_ONCE):
                queue.loses = True
                stream = call(channel)
                with suppress(*OVER):
                    await stream.headers()
                await eventually(lambda: not queue.loses)
                stream.stub.cancel()
            await serves(call(channel))

    asyncio.run(scenario())
