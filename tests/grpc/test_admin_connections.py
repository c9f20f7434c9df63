"""Connections to the admin server: too many of them, silent ones, and those that do not speak HTTP."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from extproc.config.loading import parse
from extproc.core.estimator.protocol import LearnedState
from extproc.server.admin_http import CONNECTIONS, _Connection
from tests.grpc.served import WITHIN_S, App
from tests.grpc.test_admin import get
from tests.plain import NO_AUTHORITIES

Router = Callable[..., Any]
TOKEN = b"a-token-of-more-than-thirty-two-bytes"


@contextlib.asynccontextmanager
async def connection(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection to the admin server, and send nothing."""
    host, _, port = app.admin_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Read until the server closes the connection, whether or not it sends anything first."""
    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    return True


def test_one_connection_too_many_replaces_the_oldest_silent_one(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that holds connections open without sending anything does not lock out a probe."""
    monkeypatch.setattr("extproc.server.admin_http.CONNECTIONS", 2)

    async def scenario() -> None:
        async with router() as app, connection(app) as (oldest, _), connection(app):
            assert 200 == (await get(app, "/healthz")).status_code
            assert await is_closed(oldest)

    asyncio.run(scenario())


async def answers(app: App) -> bool:
    """Return whether a page is served: a connection is dropped for later ones until its request has come."""
    try:
        return (await get(app, "/healthz")).status_code == 200
    except httpx.TransportError:
        return False


def test_a_flood_of_connections_takes_few_descriptors(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections wait to be accepted: the gateway's connections need descriptors, too."""
    connected = threading.Event()
    made, lost = _Connection.connection_made, _Connection.connection_lost
    number = [0, 0]

    def counted(connection: Any, transport: Any) -> None:
        number[:] = number[0] + 1, max(number[1], number[0] + 1)
        made(connection, transport)

    def uncounted(connection: Any, error: Exception | None) -> None:
        number[0] -= 1
        lost(connection, error)

    monkeypatch.setattr(_Connection, "connection_made", counted)
    monkeypatch.setattr(_Connection, "connection_lost", uncounted)

    async def scenario() -> None:
        async with router() as app:
            assert 200 == (await get(app, "/healthz")).status_code
            loop = app._admins[0]._server._loop
            loop.call_soon_threadsafe(connected.wait, 10)
            with contextlib.ExitStack() as sockets:
                host, _, port = app.admin_address.rpartition(":")
                for _ in range(20 * CONNECTIONS):
                    flooding = sockets.enter_context(socket.socket())
                    flooding.settimeout(0)
                    with contextlib.suppress(BlockingIOError):
                        flooding.connect((host, int(port)))
                connected.set()
                async with asyncio.timeout(WITHIN_S):
                    while not await answers(app):
                        pass

    asyncio.run(scenario())
    assert number[1] < 6 * CONNECTIONS


def test_a_connection_is_refused_when_all_are_busy(
    router: Router, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """Requests in progress are not dropped for a new connection; after they finish, there is room again."""
    monkeypatch.setattr("extproc.server.admin_http.CONNECTIONS", 2)
    may_answer = threading.Event()

    def slow(_state: LearnedState) -> str:
        may_answer.wait(10)
        return "{}"

    monkeypatch.setattr("extproc.server.admin.to_json", slow)

    async def scenario() -> None:
        async with router() as app:
            connections = app._admins[0]._server.server_state.connections
            asking = [asyncio.ensure_future(get(app, "/state")) for _ in range(2)]
            await eventually(lambda: [True, True] == [each.answering for each in list(connections)])
            async with connection(app) as (refused, _):
                assert await is_closed(refused)
            may_answer.set()
            assert [200, 200] == [(await each).status_code for each in asking]
            assert 200 == (await get(app, "/healthz")).status_code

    asyncio.run(scenario())


def test_clients_that_do_not_read_lock_out_nobody(
    router: Router, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """Of requests in progress, the oldest whose client does not read makes room for a new connection."""
    monkeypatch.setattr("extproc.server.admin_http.CONNECTIONS", 2)
    monkeypatch.setattr("extproc.server.admin.to_json", lambda _state: "x" * 64_000_000)

    async def scenario() -> None:
        async with router() as app, connection(app) as (_, one), connection(app) as (_, other):
            for each in (one, other):
                each.transport.pause_reading()  # type: ignore[attr-defined]
                each.write(b"GET /state HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
            connections = app._admins[0]._server.server_state.connections
            await eventually(
                lambda: [True, True] == [each.answering and each.unread for each in list(connections)]
            )
            assert 200 == (await get(app, "/healthz")).status_code

    asyncio.run(scenario())


def test_requests_sent_without_waiting_lock_out_nobody(
    router: Router, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    """A connection that has had an answer makes room while its next request is in progress."""
    monkeypatch.setattr("extproc.server.admin_http.CONNECTIONS", 2)
    may_answer, asked = threading.Event(), threading.Semaphore(0)

    def slow(_state: LearnedState) -> str:
        asked.release()
        may_answer.wait(10)
        return "{}"

    monkeypatch.setattr("extproc.server.admin.to_json", slow)
    healthz, state = (b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path for path in (b"/healthz", b"/state"))

    async def scenario() -> None:
        async with router() as app, connection(app) as (reader, one), connection(app) as (_, other):
            try:
                one.write(healthz + state)
                assert await asyncio.to_thread(asked.acquire, timeout=10)
                other.write(state)
                connections = app._admins[0]._server.server_state.connections
                await eventually(lambda: [True, True] == [each.answering for each in list(connections)])
                assert 200 == (await get(app, "/healthz")).status_code
                assert await is_closed(reader)
            finally:
                may_answer.set()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"]
)
def test_a_silent_connection_is_closed(router: Router, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """This holds for a client that is silent from the start, in the middle of a head, or after a response."""
    monkeypatch.setattr("extproc.server.admin_http.LOOKS_EVERY_S", 0.05)

    async def scenario() -> None:
        async with router() as app, connection(app) as (reader, writer):
            writer.write(sent)
            assert await is_closed(reader)

    asyncio.run(scenario())


def test_a_client_that_does_not_read_is_disconnected(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is closed when its client does not read the large page that it asked for.

    It is so while the answer has not ended, as that of the live page never does.
    """
    monkeypatch.setattr("extproc.server.admin_http.LOOKS_EVERY_S", 0.05)
    monkeypatch.setattr("extproc.server.admin_http._Connection.answering", True)
    monkeypatch.setattr("extproc.server.admin.to_json", lambda _state: "x" * 64_000_000)
    lost = threading.Event()
    monkeypatch.setattr("extproc.server.admin_http._Connection.connection_lost", lambda *_: lost.set())

    async def scenario() -> None:
        async with router() as app, connection(app) as (_, writer):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /state HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await asyncio.to_thread(lost.wait, 10)
            app._admins[0]._server.server_state.connections.clear()

    asyncio.run(scenario())


def test_requests_that_are_not_http_or_not_get_are_refused_without_logging(
    router: Router, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise anybody who reaches the port could fill the log."""

    async def scenario() -> None:
        async with router() as app, httpx.AsyncClient(verify=NO_AUTHORITIES) as client:
            assert 405 == (await client.post(f"http://{app.admin_address}/config", content=b"x")).status_code
            upgrade = {"connection": "upgrade", "upgrade": "websocket"}
            assert 200 == (await client.get(f"http://{app.admin_address}/healthz", headers=upgrade)).status_code
            async with connection(app) as (reader, writer):
                writer.write(b"\x16\x03\x01 hello\r\n\r\n")
                assert (await reader.read()).startswith(b"HTTP/1.1 400 ")

    asyncio.run(scenario())
    assert [] == [each for each in caplog.records if each.name.startswith("uvicorn")]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /live HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %s\r\n\r\n",
        (
            b"POST /state/import HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %s\r\n"
            b"content-length: 1000\r\n\r\nthe beginning"
        ),
    ],
)
def test_a_stop_ends_requests_that_do_not_end_without_an_error(
    tmp_path: Path, eventually: Any, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    """A page that watches the router, or a body that does not arrive, is cut off as if the client had left."""
    (tmp_path / "token").write_bytes(TOKEN)
    app = App(
        parse(
            "listen: {address: '127.0.0.1:0'}\ndrain_s: 0\n"
            f"admin: {{address: '127.0.0.1:0', token_file: {tmp_path / 'token'}}}"
        )
    )

    async def scenario() -> None:
        await app.start()
        async with connection(app) as (_, writer):
            writer.write(sent % TOKEN)
            connections: Any = app._admins[0]._server.server_state.connections
            await eventually(lambda: any(each.answering for each in list(connections)))
            await app.stop()

    asyncio.run(scenario())
    assert [] == [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
