"""Envoy's access log as a gRPC stream to the router: what the router learns from it, and what it must not do."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsResponse
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from extproc.access_log.seal import Seal
from extproc.access_log.teacher import Outcome
from extproc.config.loading import parse
from extproc.server import access_logs
from extproc.server.access_logs import MAX_MESSAGE_BYTES, STREAM_ACCESS_LOGS
from tests.grpc.served import App
from tests.grpc.test_estimate_admin import WORDS, chat, decided
from tests.unit.log_entries import entry, log_message, token_usage

Router = Callable[..., Any]
FROM_LOG = "learning: {source: access_log}"
ANY_PORT = "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
WITHIN_S = 10.0


class Log:
    """A stream of log entries, from Envoy's side."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_unary(
            STREAM_ACCESS_LOGS,
            request_serializer=bytes,
            response_deserializer=StreamAccessLogsResponse.FromString,
        )
        self._call = method()

    async def write(self, *messages: bytes) -> None:
        """Send messages, waiting while the router does not read."""
        for message in messages:
            await self._call.write(message)

    async def code(self) -> grpc.StatusCode:
        """Return the status code that the stream ends with."""
        return await asyncio.wait_for(self._call.code(), WITHIN_S)

    async def end(self) -> None:
        """End the stream."""
        await self._call.done_writing()
        await asyncio.wait_for(self._call, WITHIN_S)


async def evidence_of(channel: grpc.aio.Channel, call: type[Any]) -> str:
    """Send a request; return the evidence that the reply carries."""
    stream = call(channel)
    await stream.headers()
    await stream.body(chat(WORDS * 4))
    reply = await stream.read()
    assert isinstance(reply, ProcessingResponse)
    assert await stream.read() is None, "the stream is released with its decision"
    evidence: str = reply.dynamic_metadata.fields["dualpool"].struct_value.fields["evidence"].string_value
    return evidence


def counted(app: App, outcome: Outcome) -> float:
    """Return how many entries had this outcome."""
    return app.ask(lambda: float(app._streams.metrics.access_log_entries[outcome,]))


def known(app: App) -> int:
    """Return how many responses the router has learned from."""
    return sum(row.observations for row in app.ask(app.router.placer.estimator.state).models)


def with_a_log(router: Router, act: Callable[[App, grpc.aio.Channel, Log], Any], settings: str = FROM_LOG) -> Any:
    """Run `act` with a router and a stream of log entries to it; return its result."""

    async def scenario() -> Any:
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            return await act(app, channel, Log(channel))

    return asyncio.run(scenario())


def test_the_router_learns_from_entries(router: Router, call: type[Any], eventually: Any) -> None:
    """The router learns about a released request from the log entry with its evidence; each entry counts."""

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        evidence = [await evidence_of(channel, call) for _ in range(5)]
        assert all(0 < len(each) <= 300 for each in evidence)
        await log.write(log_message(*(entry(each, token_usage(90, 7)) for each in evidence), entry()))
        await eventually(lambda: known(app) == 5)
        await eventually(lambda: counted(app, Outcome.FOREIGN) == 1)
        await log.end()

    with_a_log(router, act)


def test_replicas_with_the_same_key_accept_each_others_entries(
    router: Router, call: type[Any], eventually: Any, tmp_path: Path
) -> None:
    """A router learns from another router's decisions if both have the same key, and refuses them otherwise."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 20)
    (tmp_path / "as an editor saves it").write_bytes(b"one" * 20 + b"\n")

    def settings(name: str) -> str:
        return f"learning: {{source: access_log, access_log: {{key_file: {tmp_path / name}}}}}"

    async def scenario() -> None:
        async with router(settings("one")) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            message = log_message(entry(await evidence_of(channel, call), token_usage(90, 7)))
        for name, outcome in (
            ("one", Outcome.TAUGHT),
            ("as an editor saves it", Outcome.TAUGHT),
            ("two", Outcome.FORGED),
        ):
            async with router(settings(name)) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
                await Log(channel).write(message)
                await eventually(lambda app=app, outcome=outcome: counted(app, outcome) == 1)
                assert (outcome is Outcome.TAUGHT) == known(app)

    asyncio.run(scenario())


@pytest.mark.parametrize("settings", ["learning: {source: response}", f"{FROM_LOG}\nlog_level: error"])
def test_a_stream_that_waits_follows_another_configuration_at_once(
    router: Router, call: type[Any], eventually: Any, settings: str
) -> None:
    """A stream that would wait for hours for its share goes on as soon as another configuration is in force."""

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        evidence = await evidence_of(channel, call)
        app.ask(lambda: app._access_logs.share.spend(3_600))
        await log.write(log_message(entry(evidence, token_usage(90, 7))))
        await eventually(lambda: app._access_logs._waiting)
        app.ask(lambda: app._access_logs.share.spend(-3_600))
        await asyncio.to_thread(app.apply, parse(f"{ANY_PORT}{settings}"))
        if "response" in settings:
            assert grpc.StatusCode.OK == await log.code()
        else:
            await eventually(lambda: counted(app, Outcome.TAUGHT) == 1)

    with_a_log(router, act)


def test_a_flood_of_entries_takes_no_more_than_its_cpu_share(
    router: Router, call: type[Any], eventually: Any
) -> None:
    """When more entries arrive than the CPU share allows, requests are decided and the sender is throttled."""

    async def flood(log: Log, messages: Iterable[bytes]) -> None:
        await log.write(*messages)

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        message = log_message(*[entry(await evidence_of(channel, call), token_usage(90, 7))] * 200)
        async with grpc.aio.insecure_channel(app.grpc_address) as other:
            flooding = asyncio.create_task(flood(log, [message] * 200))
            await eventually(lambda: counted(app, Outcome.TAUGHT) > 50)
            for _ in range(20):
                await decided(call(other), chat(WORDS))
            assert not flooding.done(), "40,000 entries are not taken while 20 requests are decided"
            flooding.cancel()

    with_a_log(router, act, "learning: {source: access_log, access_log: {max_cpu_share: 0.05}}")


def test_an_old_stream_ends_after_its_entries_were_learned_from(
    router: Router, call: type[Any], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway balances only new streams: otherwise one of several routers would learn from all requests."""
    monkeypatch.setattr(access_logs, "STREAM_S", 0.0)

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        evidence = await evidence_of(channel, call)
        await log.write(log_message(*[entry(evidence, token_usage(90, 7))] * 20))
        assert grpc.StatusCode.OK is await log.code()
        await eventually(lambda: known(app) == 20)

    with_a_log(router, act)


def test_a_drain_ends_the_stream(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """A router that shuts down does not wait for the gateway to end its log stream."""
    monkeypatch.setattr("extproc.server.app.LAST_STREAMS_S", 1.0)
    all_ended = []

    async def scenario() -> grpc.StatusCode:
        async with router(FROM_LOG) as app:
            cancel = app._core.cancel_calls

            def cancels() -> None:
                all_ended.append(app._core.done)
                cancel()

            monkeypatch.setattr(app._core, "cancel_calls", cancels)
            channel = grpc.aio.insecure_channel(app.grpc_address)
            log = Log(channel)
            await log.write(log_message(entry()))
        async with channel:
            return await log.code()

    assert asyncio.run(scenario()) in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert [True] == all_ended


@pytest.mark.parametrize(
    ("settings", "messages", "code"),
    [
        # Without a message: if the stream ends while one is written, the client reports INTERNAL.
        ("", (), grpc.StatusCode.UNIMPLEMENTED),
        (FROM_LOG, (b"\xff\xff",), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bytes_that_are_not_an_entry_are_refused(
    router: Router, settings: str, messages: tuple[bytes, ...], code: grpc.StatusCode
) -> None:
    """Bytes that are not a message end the stream; with learning from responses the service does not exist."""

    async def act(_app: App, _channel: grpc.aio.Channel, log: Log) -> grpc.StatusCode:
        await log.write(*messages)
        return await log.code()

    assert code == with_a_log(router, act, settings)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_a_stream_is_kept_when_it_is_over(
    router: Router, eventually: Any, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """The router forgets a stream of entries that the gateway ended, and one that its own exception ended."""

    async def act(app: App, _channel: grpc.aio.Channel, log: Log) -> None:
        if fails:
            monkeypatch.setattr(access_logs, "decode_log", lambda *_: 1 / 0)
        await log.write(log_message(entry()))
        if fails:
            assert grpc.StatusCode.INTERNAL is await log.code()
        else:
            await eventually(lambda: counted(app, Outcome.FOREIGN) == 1)
            assert 1 == app.ask(lambda: len(app._access_logs.open))
            await log.end()
        await app.calls_over()
        assert not app.ask(lambda: app._access_logs.open)

    with_a_log(router, act)


def test_a_message_that_is_too_large_is_dropped(router: Router, eventually: Any) -> None:
    """A message far larger than any that Envoy sends is counted but not decoded; the stream continues."""

    async def act(app: App, _channel: grpc.aio.Channel, log: Log) -> None:
        await log.write(b"\0" * (MAX_MESSAGE_BYTES + 1), log_message(entry()))
        await eventually(lambda: counted(app, Outcome.TOO_LARGE) == 1 and counted(app, Outcome.FOREIGN) == 1)
        await log.end()

    with_a_log(router, act)


def test_a_message_of_more_than_1000_entries_is_dropped(router: Router, eventually: Any) -> None:
    """Its entries are not converted, which would delay decisions, however short they are; it is counted."""

    async def act(app: App, _channel: grpc.aio.Channel, log: Log) -> None:
        await log.write(log_message(*[entry()] * 1_001), log_message(*[entry()] * 1_000))
        await eventually(lambda: counted(app, Outcome.FOREIGN) == 1_000)
        assert 1 == counted(app, Outcome.TOO_LARGE)
        await log.end()

    with_a_log(router, act)


def test_replies_carry_no_evidence_when_learning_from_responses(router: Router, call: type[Any]) -> None:
    """By default the reply's metadata holds only fields for people who read the gateway's log."""

    async def scenario() -> set[str]:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            return set(await decided(call(channel), chat(WORDS)))

    assert {"pool", "reason", "mode", "source", "estimate", "prompt_tokens"} == asyncio.run(scenario())


def test_an_exception_costs_the_evidence_and_not_the_decision(
    router: Router, call: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a decision cannot be sealed, it goes out without evidence, and the exception is reported."""

    async def act(app: App, channel: grpc.aio.Channel, _log: Log) -> None:
        monkeypatch.setattr(Seal, "seal", lambda *_: 1 // 0)
        fields = await decided(call(channel), chat(WORDS))
        assert "evidence" not in fields
        assert "estimate" in fields
        assert 1 == app.ask(lambda: app._streams.metrics.exceptions["ZeroDivisionError",])

    with_a_log(router, act)


def test_decisions_that_do_not_fit_are_counted(router: Router, call: type[Any]) -> None:
    """A request whose names are too long for evidence goes out without, and is counted; others are not."""

    async def act(app: App, channel: grpc.aio.Channel, _log: Log) -> None:
        for model, left_out in (("short", 0), ("m" * 250, 1)):
            fields = await decided(call(channel), chat(WORDS).replace(b'"m"', f'"{model}"'.encode()))
            assert bool(left_out) is ("evidence" not in fields)
            assert left_out == app.ask(lambda: app._streams.metrics.evidence_left_out[()])
            assert 1 == app.ask(lambda: app._streams.metrics.evidence_sent[()]), "the first one's"

    with_a_log(router, act)


def test_old_entries_expire_after_the_configured_age(
    router: Router, call: type[Any], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`max_age_s` is the age up to which entries teach."""

    async def act(app: App, channel: grpc.aio.Channel, log: Log) -> None:
        evidence = await evidence_of(channel, call)
        now_s = time.time()
        for later_s, outcome in ((90, Outcome.TAUGHT), (110, Outcome.EXPIRED)):
            clock = SimpleNamespace(monotonic=time.monotonic, time=lambda later_s=later_s: now_s + later_s)
            monkeypatch.setattr(access_logs, "time", clock)
            await log.write(log_message(entry(evidence, token_usage(90, 7))))
            await eventually(lambda outcome=outcome: counted(app, outcome) == 1)

    with_a_log(router, act, "learning: {source: access_log, access_log: {max_age_s: 100}}")
