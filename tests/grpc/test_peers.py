"""What gRPC itself does with peers: neither what its defaults take for an attack, nor an attack, does harm."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import hpack
import pytest

from extproc.telemetry.log import JsonFormatter
from tests.grpc.conftest import METHOD
from tests.grpc.frames import HEAD, PREFACE, frame
from tests.grpc.messages import Router

HEADERS, SETTINGS, PING, GOAWAY = 1, 4, 6, 7
ACK, END_STREAM, END_HEADERS = 1, 1, 4
FRAME_HEAD_BYTES: Final = 9
WITHIN_S: Final = 10.0
QUIET_S: Final = 0.15
STREAMS: Final = 4_000
INFLATED_BYTES: Final = 64 << 20


class Peer:
    """A client that speaks HTTP/2 in frames; every wait has a timeout."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), WITHIN_S)
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._unparsed = b""
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def open(self, streams: int, flags: int = 0, head: dict[bytes | str, bytes | str] = HEAD) -> None:
        """Open some streams, from the first possible number upwards."""
        self._socket.sendall(
            b"".join(
                frame(HEADERS, END_HEADERS | flags, number, self._encoder.encode(head))
                for number in range(1, 2 * streams, 2)
            )
        )

    def ping(self, times: int = 1) -> None:
        """Send pings at once."""
        self._socket.sendall(frame(PING, 0, 0, bytes(8)) * times)

    def answer(self) -> int:
        """Return the kind of frame that answers a ping."""
        return next(kind for kind, flags, _ in self._frames() if kind == GOAWAY or (kind == PING and flags & ACK))

    def is_sent_away(self) -> bool:
        """Wait for the end of the connection; return whether the router has announced it."""
        return any(kind == GOAWAY for kind, _, _ in self._frames())

    def listen(self) -> None:
        """Wait until nothing has come for a moment."""
        self._socket.settimeout(QUIET_S)
        with suppress(TimeoutError):
            while data := self._socket.recv(1 << 16):
                self._unparsed += data
        self._socket.settimeout(WITHIN_S)

    def statuses(self, streams: int) -> list[bytes]:
        """Return the gRPC status of so many streams that end."""
        found: list[bytes] = []
        for kind, _, content in self._frames():
            if kind == HEADERS:
                status = dict(self._decoder.decode(content, raw=True)).get(b"grpc-status")
                found += [] if status is None else [status]
            if len(found) == streams:
                break
        return found

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield kind, flags and content of each frame that comes, until the router closes the connection."""
        while True:
            while (size := FRAME_HEAD_BYTES + int.from_bytes(self._unparsed[:3], "big")) <= len(self._unparsed):
                kind, flags, content = *self._unparsed[3:5], self._unparsed[FRAME_HEAD_BYTES:size]
                self._unparsed = self._unparsed[size:]
                yield kind, flags, content
            data = self._socket.recv(1 << 16)
            if not data:
                return
            self._unparsed += data


def test_a_gateway_may_ping_often(router: Router) -> None:
    """Several pings a second are all answered; gRPC's default would end the connection, and all streams on it."""

    def pings(address: str) -> list[int]:
        peer = Peer(address)
        try:
            peer.open(1)
            answers = []
            for _ in range(12):
                peer.ping()
                answers.append(peer.answer())
                peer.listen()
            return answers
        finally:
            peer.close()

    async def scenario() -> list[int]:
        async with router() as app:
            return await asyncio.to_thread(pings, app.grpc_address)

    assert [PING] * 12 == asyncio.run(scenario())


def test_a_flood_of_pings_ends_its_connection(router: Router) -> None:
    """Pings without a pause are no way to notice that a router hangs: gRPC's protection stays."""

    def pings(address: str) -> bool:
        peer = Peer(address)
        try:
            peer.open(1)
            peer.ping(10)
            return peer.is_sent_away()
        finally:
            peer.close()

    async def scenario() -> bool:
        async with router() as app:
            return await asyncio.to_thread(pings, app.grpc_address)

    assert asyncio.run(scenario())


def test_metadata_is_not_logged(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are not UTF-8 are logged by gRPC; a gateway that traces passes on a client's `tracestate`."""

    def asks(address: str) -> list[bytes]:
        peer = Peer(address)
        try:
            peer.open(1, END_STREAM, {**HEAD, "tracestate": b"k=secret\xff"})
            return peer.statuses(1)
        finally:
            peer.close()

    async def scenario() -> list[bytes]:
        async with router() as app:
            return await asyncio.to_thread(asks, app.grpc_address)

    assert [b"0"] == asyncio.run(scenario())
    shown = [JsonFormatter().format(each) for each in caplog.records]
    assert any("Invalid encoding" in each for each in shown), "gRPC still logs it"
    assert not any("secret" in each for each in shown)


def test_streams_that_came_while_the_router_paused_are_served(router: Router) -> None:
    """However many wait when the router runs again, none is refused; gRPC would refuse those beyond a thousand."""
    resumed = threading.Event()

    def flood(address: str) -> list[bytes]:
        peer = Peer(address)
        try:
            peer.open(STREAMS, END_STREAM)
            resumed.set()
            return peer.statuses(STREAMS)
        finally:
            resumed.set()
            peer.close()

    async def scenario() -> list[bytes]:
        async with router() as app:
            app.loop.post(lambda: resumed.wait(WITHIN_S))
            return await asyncio.to_thread(flood, app.grpc_address)

    statuses = asyncio.run(scenario())
    assert {b"0": STREAMS} == {status: statuses.count(status) for status in statuses}


def test_a_compressed_message_is_not_inflated_beyond_the_limit(tmp_path: Path) -> None:
    """A message of 64 KB that would become 64 MiB is refused before it has the memory; the router serves on."""
    config = tmp_path / "c.yaml"
    limit = "listen: {address: '127.0.0.1:0', max_message_bytes: 1048576}"
    config.write_text(f"{limit}\nadmin: {{address: '127.0.0.1:0'}}\ndrain_s: 0")
    command = [sys.executable, "-m", "extproc.cli.main", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = json.loads(process.stderr.readline())["grpc"]
            before_kb = most_memory_kb(process.pid)
            options = [("grpc.max_send_message_length", -1)]
            with grpc.insecure_channel(address, options, grpc.Compression.Gzip) as channel:
                raw: Any = channel.stream_stream  # the stubs require serializers
                code = raw(METHOD)(iter([bytes(INFLATED_BYTES)]), timeout=WITHIN_S).code()
                assert grpc.StatusCode.RESOURCE_EXHAUSTED == code
            assert (most_memory_kb(process.pid) - before_kb) * 1024 < INFLATED_BYTES / 4
        finally:
            process.kill()


def most_memory_kb(pid: int) -> int:
    """Return the most memory that a process has had."""
    (most,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(most)
