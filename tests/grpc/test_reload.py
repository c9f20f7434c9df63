"""A running router whose configuration is reloaded: streams, learned state, deadlines, pool names."""

import asyncio
import json
import signal
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from tests.grpc.served import App
from tests.grpc.test_serve_command import started
from tests.grpc.watched import serving
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]
CHAT = b'{"model":"m","messages":[{"role":"user","content":"How are you, all of you?"}],"max_tokens":90}'
USAGE = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
BASE = "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
SMALL = "pools: [{name: tiny, max_budget_tokens: 20}, {name: long, max_budget_tokens: 9000}]\n"


async def apply(app: App, settings: str) -> None:
    """Apply other settings."""
    await asyncio.to_thread(app.apply, parse(BASE + settings))


async def decide(stream: Any) -> tuple[str, ...]:
    """Send a body; return the headers that the decision sets."""
    await stream.body(CHAT)
    reply = await stream.read()
    mutation = reply.request_headers.response.header_mutation
    return tuple(f"{each.header.key}: {each.header.raw_value.decode()}" for each in mutation.set_headers)


async def learn(stream: Any) -> None:
    """Send a response to a decided request, and read the stream to its end."""
    await stream.response_headers()
    await stream.response_body(USAGE)
    while await stream.read() is not None:
        pass


def observations(app: App) -> int:
    """Return how many responses the estimator in force has learned from."""
    return sum(row.observations for row in app.ask(app.router.placer.estimator.state).models)


def test_a_stream_keeps_the_routing_it_began_with(router: Router, call: type[Any]) -> None:
    """A request whose headers arrived before a reload is decided by the old settings, the next one by the new."""

    async def scenario() -> tuple[tuple[str, ...], tuple[str, ...]]:
        settings = "exchange: {deadline_ms: 60000}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            before, after = call(channel), call(channel)
            await before.headers()
            await asyncio.to_thread(wait_for_exchange, app)
            await apply(app, f"{SMALL}headers: {{pool: x-pool}}")
            await after.headers()
            return await decide(before), await decide(after)

    before, after = asyncio.run(scenario())
    assert "x-token-budget-pool: short" in before
    assert "x-token-budget-reason: too_long" in after


def wait_for_exchange(app: App) -> None:
    """Wait until a request waits for its decision."""
    while not app.ask(lambda: any(stream.waits for stream in app._streams.open)):
        pass


def test_changed_pools_keep_what_was_learned(router: Router, call: type[Any]) -> None:
    """After a change of pools the same estimator is used, and learns from streams that began before."""

    async def scenario() -> None:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            estimator = app.router.placer.estimator
            stream = call(channel)
            await stream.headers()
            await decide(stream)
            await apply(app, SMALL)
            await learn(stream)
            await app.calls_over()
            assert estimator is app.router.placer.estimator
            assert 1 == observations(app)

    asyncio.run(scenario())


def test_changed_options_of_the_estimator_keep_what_was_learned(router: Router, call: type[Any]) -> None:
    """A new epsilon or limit keeps the prices; another kind of estimator starts empty."""

    async def scenario() -> list[int]:
        async with router() as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream = call(channel)
            await stream.headers()
            await decide(stream)
            await learn(stream)
            await app.calls_over()
            found = [observations(app)]
            for settings in ("estimator: {byteclass: {epsilon: 0.2}}", "estimator: {kind: ema}"):
                await apply(app, settings)
                found.append(observations(app))
            return found

    assert [1, 1, 0] == asyncio.run(scenario())


def test_what_a_refused_reload_would_have_done_is_not_logged(
    router: Router, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another kind of estimator starts empty, once it is in force: a refused file is tried again and again, and so
    is one that a busy loop did not take.
    """
    key_file = tmp_path / "key"
    settings = f"learning: {{source: access_log, access_log: {{key_file: {key_file}}}}}\nestimator: {{kind: ema}}"

    async def scenario() -> None:
        async with router() as app:
            with pytest.raises(ConfigurationError, match="key_file"):
                await apply(app, settings)
            assert "starts empty" not in caplog.text
            key_file.write_bytes(bytes(32))
            with monkeypatch.context() as patch:
                patch.setattr("extproc.server.in_force.TAKEN_WITHIN_S", 0.0)
                free = threading.Event()
                app.loop.post(free.wait)
                try:
                    with pytest.raises(TimeoutError):
                        await apply(app, settings)
                finally:
                    free.set()
            assert "starts empty" not in caplog.text
            await apply(app, settings)
            assert 1 == caplog.text.count("starts empty")

    asyncio.run(scenario())


def test_a_response_that_comes_after_a_reload_has_a_deadline(
    router: Router, call: type[Any], eventually: Callable[..., Any]
) -> None:
    """Its headers are replied to although the deadlines that were in force when its request came are gone."""

    async def scenario() -> None:
        settings = "exchange: {deadline_ms: 20}"
        async with router(settings) as app, grpc.aio.insecure_channel(app.grpc_address) as channel:
            stream, before = call(channel), app._streams.routing.deadlines
            await stream.headers()
            await decide(stream)
            assert (await stream.read()).HasField("request_body")
            await eventually(lambda: before.next_s == inf)
            await apply(app, "exchange: {deadline_ms: 30}")
            assert before not in app._in_force._timers
            await stream.response_headers()
            assert (await stream.read()).HasField("response_headers")

    asyncio.run(scenario())


def test_deadlines_hold_across_a_reload(router: Router, call: type[Any], eventually: Callable[..., Any]) -> None:
    """A waiting request keeps the deadline it began with, a later one gets the new; unused timers are removed."""

    async def scenario() -> None:
        async with router("exchange: {deadline_ms: 300}") as app:
            timers = app.ask(lambda: len(app.loop._timers))
            async with grpc.aio.insecure_channel(app.grpc_address) as channel:
                before, after = call(channel), call(channel)
                await before.headers()
                await asyncio.to_thread(wait_for_exchange, app)
                await apply(app, "exchange: {deadline_ms: 50}")
                await after.headers()
                for stream in (after, before):
                    reply = await stream.read()
                    metadata = reply.dynamic_metadata.fields["dualpool"].struct_value.fields
                    assert "deadline" == metadata["reason"].string_value
            for deadline_ms in range(60, 80):
                await apply(app, f"exchange: {{deadline_ms: {deadline_ms}}}")
            assert timers == app.ask(lambda: len(app.loop._timers))

    asyncio.run(scenario())


def test_other_servers_are_polled_after_a_reload(router: Router, eventually: Callable[..., Any]) -> None:
    """Endpoints in the new file are polled; loads, models and metrics of removed pools are dropped."""

    async def scenario(url: str) -> None:
        def shown() -> list[float | None]:
            names = ("endpoints", "endpoints_answered", "models", "pressure", "spill_share", "preemptions")
            labels = {"pool": "tiny"}
            return [app.registry.get_sample_value(f"dualpool_pool_{name}", labels) for name in names]

        async with router("watch: {every_s: 0.1}") as app:
            await apply(
                app, f"watch: {{every_s: 0.1}}\n{SMALL.replace('20}', f'20, endpoints: {{urls: [{url}]}}}}')}"
            )
            await eventually(lambda: app.router.fleet is not None and "tiny" in app.router.fleet.loads)
            await eventually(lambda: None not in shown())
            await apply(app, SMALL)
            assert ({}, {}) == (app.router.fleet.loads, app.router.fleet.serving.served)
            await eventually(lambda: [None] * 6 == shown())

    serving(scenario)


def test_another_log_level_is_in_force_at_once(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """So an operator sees each decision without a restart."""
    levels: list[str] = []
    monkeypatch.setattr("extproc.server.in_force.set_log_level", levels.append)

    async def scenario() -> None:
        async with router() as app:
            await asyncio.to_thread(app.apply, parse("log_level: debug"))

    asyncio.run(scenario())
    assert ["debug"] == levels


def test_the_settings_in_force_are_shown(router: Router) -> None:
    """/config and dualpool_info show the reloaded settings, /config also the outcome of the last reload."""

    async def scenario() -> None:
        async with (
            router() as app,
            httpx.AsyncClient(base_url=f"http://{app.admin_address}", verify=NO_AUTHORITIES) as admin,
        ):
            await apply(app, "mode: shadow")
            shown = (await admin.get("/config")).json()
            assert "shadow" == shown["mode"]
            assert (None, None) == (shown["reload"]["file"], shown["reload"]["refused"])
            lines = [each for each in (await admin.get("/metrics")).text.splitlines() if "dualpool_info{" in each]
            assert [True] == ['mode="shadow"' in each for each in lines]

    asyncio.run(scenario())


def test_sighup_reloads_the_file(tmp_path: Path) -> None:
    """SIGHUP applies the file's settings; the errors of an invalid file are logged, and it changes nothing."""
    config = tmp_path / "c.yaml"
    config.write_text(BASE)
    with started(config) as (process, admin):
        assert process.stderr is not None
        for text in (f"{BASE}mode: shadow", f"{BASE}mode: on"):
            config.write_text(text)
            process.send_signal(signal.SIGHUP)
            line = json.loads(process.stderr.readline())
        assert ["mode: 'on' given; allowed: enforce, shadow, off"] == line["errors"]
        shown = httpx.get(f"http://{admin}/config", verify=NO_AUTHORITIES).json()
        assert ("shadow", line["errors"]) == (shown["mode"], shown["reload"]["refused"]["errors"])


def test_a_changed_file_is_noticed(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    """The change is applied soon, without a signal."""
    config = tmp_path / "c.yaml"
    config.write_text(BASE)
    with started(config) as (_process, admin):
        config.write_text(f"{BASE}mode: shadow")
        asyncio.run(
            eventually(
                lambda: httpx.get(f"http://{admin}/config", verify=NO_AUTHORITIES).json()["mode"] == "shadow"
            )
        )
