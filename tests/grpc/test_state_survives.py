"""Learned state survives a restart of the router, in its file and in the store."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from extproc.core.errors import ConfigurationError
from extproc.state.file import read_state
from tests.grpc.served import App
from tests.grpc.test_estimate_admin import WORDS, chat, decided
from tests.unit.redis_server import redis_server

Router = Callable[..., Any]
WITHIN_S = 20.0


async def learn(address: str, call: type[Any], count: int) -> None:
    """Send exchanges that the router at this address learns from."""
    usage = {"usage": {"prompt_tokens": 60, "completion_tokens": 3}, "choices": [{"finish_reason": "stop"}]}
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(count):
            stream = call(channel)
            await decided(stream, chat(WORDS * 4))
            await stream.response_headers()
            await stream.response_body(json.dumps(usage).encode())
            while await stream.read() is not None:
                pass


def known(app: App) -> int:
    """Return how many responses the router has learned from."""
    return sum(row.observations for row in app.ask(app.router.placer.estimator.state).models)


def test_learned_state_is_there_after_a_restart(router: Router, call: type[Any], tmp_path: Path) -> None:
    """A router saves its state when it ends, and the next one starts with it."""
    settings = f"state: {{path: {tmp_path}/state, every_s: 3600}}"

    async def scenario() -> int:
        async with router(settings) as app:
            await learn(app.grpc_address, call, 7)
        async with router(settings) as app:
            return known(app)

    assert 7 == asyncio.run(scenario())


def test_a_killed_router_loses_an_interval_at_most(router: Router, call: type[Any], tmp_path: Path) -> None:
    """After SIGKILL the file is intact and holds what was learned up to the last interval."""
    path = tmp_path / "state"
    (tmp_path / "config.yaml").write_text(
        f"listen: {{address: 'unix:{tmp_path}/socket'}}\nadmin: {{address: '127.0.0.1:0'}}\n"
        f"state: {{path: {path}, every_s: 0.1}}"
    )
    command = [sys.executable, "-m", "extproc.cli.main", "serve", "--config", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    try:
        until((tmp_path / "socket").exists)
        asyncio.run(learn(f"unix:{tmp_path}/socket", call, 5))
        until(lambda: saved(path) == 5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

    async def scenario() -> int:
        async with router(f"state: {{path: {path}}}") as app:
            return known(app)

    assert 5 == asyncio.run(scenario())


def test_routers_share_what_they_learn_while_they_serve(router: Router, call: type[Any], tmp_path: Path) -> None:
    """Two running routers learn from each other, and a third one has the state before its first request."""
    with redis_server(tmp_path) as server:
        settings = f"state: {{store: {{url: '{server.url}', every_s: 0.1}}}}"

        async def scenario() -> None:
            async with router(settings) as one, router(settings) as two:
                await learn(one.grpc_address, call, 6)
                await learn(two.grpc_address, call, 4)
                await eventually(lambda: known(one) == known(two) == 10)
                async with router(settings.replace("every_s: 0.1", "every_s: 3600")) as three:
                    assert 10 == known(three)

        asyncio.run(scenario())


def test_no_request_fails_whatever_happens_to_the_store(router: Router, call: type[Any], tmp_path: Path) -> None:
    """With a store that restarts or stops answering, requests are decided, and no state or connection leaks."""
    with redis_server(tmp_path) as server:
        settings = f"state: {{store: {{url: '{server.url}', every_s: 0.05, timeout_s: 0.2}}}}"

        async def scenario() -> None:
            async with router(settings) as app:

                def exchanges(outcome: str) -> float:
                    return (
                        app.registry.get_sample_value("dualpool_state_exchanges_total", {"outcome": outcome})
                        or 0.0
                    )

                async def more(outcome: str) -> None:
                    before = exchanges(outcome)
                    await eventually(lambda: exchanges(outcome) > before)

                await learn(app.grpc_address, call, 3)
                await more("done")
                open_before = open_files()
                server.kill()
                await more("failed")
                await learn(app.grpc_address, call, 3)
                server.start()
                await more("done")
                with server.silent():
                    await more("failed")
                    await learn(app.grpc_address, call, 3)
                await more("done")
                await more("done")
                assert open_files() <= open_before + 1
                async with router(settings) as new:
                    # The store may be too slow to answer `new` within its 0.2 s at the start.
                    await eventually(lambda: known(app) == known(new) == 9)
                assert not app.registry.get_sample_value("dualpool_exceptions_total")

        asyncio.run(scenario())


def open_files() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def saved(path: Path) -> int:
    """Return how many responses the state in a file was learned from."""
    try:
        return sum(row.observations for row in read_state(path).models)
    except ConfigurationError:
        return 0


def until(true: Callable[[], bool]) -> None:
    """Block until a condition is true, with a timeout."""
    ends_s = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < ends_s, "it did not come to be"
        time.sleep(0.01)


async def eventually(true: Callable[[], bool]) -> None:
    """Wait until a condition is true, without blocking the test's event loop."""
    await asyncio.to_thread(until, true)


@pytest.mark.parametrize(
    "url",
    [
        *("http://host", "redis://", "redis://:secret@host:6379/0", "redis://host:70000", "host:6379"),
        *(
            "redis://host/dualpool",
            "redis://host/0/1",
            "redis://host/-1",
            "unix://host/path",
            "unix:",
            "redis://h#0",
        ),
        *(
            "redis://host?password=secret",
            "rediss://host/0?ssl_cert_reqs=none",
            "unix:///path?db=1&password=secret",
        ),
        *("redis://host/0?db=1", "unix:///path?db=one", "redis://host?socket_timeout=9999"),
    ],
)
def test_an_invalid_store_url_is_refused(router: Router, url: str) -> None:
    """Invalid URLs, and passwords in a URL, which /config would show, are errors that name the setting."""
    from extproc.config.loading import parse  # noqa: PLC0415

    with pytest.raises(ConfigurationError, match=r"state\.store\.url") as error:
        parse(f"state: {{store: {{url: '{url}'}}}}")
    assert "secret" not in str(error.value)
