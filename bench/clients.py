"""Clients that each send one request after another on a connection and count errors and corrupted bodies."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from hashlib import sha256

__all__ = ["Seen", "under_load"]

# Longer than any request here waits: at most for a router that is stopped for 30 s.
TIMEOUT_S = 60.0


@dataclass
class Seen:
    """Client-side counts.

    Requests, errors by status (0: no response), corrupted bodies, responses from the short pool, and the seconds
    that each request took.
    """

    requests: int = 0
    errors: Counter[int] = field(default_factory=Counter)
    corrupted: int = 0
    short: int = 0
    seconds: list[float] = field(default_factory=list)


async def under_load(port: int, bodies: list[bytes], clients: int, meanwhile: Awaitable[None]) -> Seen:
    """Let clients send the bodies in turn until `meanwhile` is done; return their counts."""
    seen, over = Seen(), asyncio.Event()
    sending = [asyncio.ensure_future(_client(port, bodies, number, seen, over)) for number in range(clients)]
    try:
        await meanwhile
    finally:
        over.set()
    await asyncio.gather(*sending)
    return seen


async def _client(port: int, bodies: list[bytes], number: int, seen: Seen, over: asyncio.Event) -> None:
    expected = [sha256(body).hexdigest() for body in bodies]
    streams = await asyncio.open_connection("127.0.0.1", port)
    while not over.is_set():
        number = (number + 1) % len(bodies)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, headers = await _ask(*streams, bodies[number])
        except (OSError, asyncio.IncompleteReadError):
            status, headers = 0, {}
            streams[1].close()
            streams = await asyncio.open_connection("127.0.0.1", port)
        seen.requests += 1
        seen.seconds.append(time.monotonic() - began_s)
        if status != 200:
            seen.errors[status] += 1
        seen.corrupted += headers.get("x-body-sha256", expected[number]) != expected[number]
        seen.short += headers.get("x-served-by") == "short"
    streams[1].close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
) -> tuple[int, dict[str, str]]:
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: pools\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    await _read_body(reader, headers)
    return int(status.split()[1]), headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
    if headers.get("transfer-encoding") != "chunked":
        await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readexactly(2)
