"""Clients that disconnect at every point of an exchange, by close or reset, and the resources that this leaks."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench import messages
from bench.measuring import Plan, Table
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

MODES = ("streamed", "buffered", "full-duplex")
CLIENTS = 1200  # over all modes
AT_ONCE = 40
EVENTS, INTERVAL_MS = 200, 10
WITHIN_S = 20.0
BODY = messages.chat_body(2048, stream=True, include_usage=True)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: pools\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % len(BODY)
)
NOTES = f"""\
{CLIENTS:,} clients, {AT_ONCE} at a time, whose requests are learned from: a body of 2 KB, a response of {EVENTS}
events in {EVENTS * INTERVAL_MS / 1000:.0f} s. They disconnect at these moments in turn: {{}};
every second one with a reset. The table shows what is left after at most {WITHIN_S:.0f} s: open streams of the
router, its additional descriptors and threads, active requests in Envoy, tracebacks in the router's log, and
exceptions that it counted. Bar: 0 everywhere. The last request is an ordinary one and must be learned from."""

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _in_the_head(client: Client) -> None:
    client[1].write(HEAD[:40])


async def _after_the_head(client: Client) -> None:
    client[1].write(HEAD)
    await asyncio.sleep(0.01)


async def _in_the_body(client: Client) -> None:
    client[1].write(HEAD + BODY[: len(BODY) // 2])
    await asyncio.sleep(0.02)


async def _after_the_deadline(client: Client) -> None:
    client[1].write(HEAD + BODY[: len(BODY) // 2])
    await asyncio.sleep(0.2)


async def _after_the_body(client: Client) -> None:
    client[1].write(HEAD + BODY)


async def _at_the_response(client: Client) -> None:
    await _after_the_body(client)
    await client[0].readuntil(b"\r\n\r\n")


async def _in_the_response(client: Client) -> None:
    await _at_the_response(client)
    await client[0].readuntil(b"data: ")
    await asyncio.sleep(0.1)


MOMENTS: dict[str, Callable[[Client], Awaitable[None]]] = {
    "in the head": _in_the_head,
    "after the head": _after_the_head,
    "in the body": _in_the_body,
    "after the deadline": _after_the_deadline,
    "after the body": _after_the_body,
    "at the response": _at_the_response,
    "in the response": _in_the_response,
}


def measure(stack: Stack, _plan: Plan) -> list[Table]:
    """Let clients disconnect in each mode and count leaked resources."""
    pool = stack.printing("bench.sse_pool", str(EVENTS), str(INTERVAL_MS))
    rows = [_row(stack, mode, pool.address) for mode in MODES]
    columns = (
        "mode",
        "clients",
        "streams",
        "descriptors",
        "threads",
        "active requests",
        "tracebacks",
        "exceptions",
        "after",
    )
    notes = NOTES.format(", ".join(MOMENTS))
    return [Table("Clients that disconnect", notes, columns, rows)]


def _row(stack: Stack, mode: str, pool: str) -> Sequence[str]:
    router = stack.router()
    gateway = stack.gateway(mode, router, pool)
    port = int(gateway.address.rpartition(":")[2])
    asyncio.run(_stays(port))  # opens the connections between Envoy and the router before the count
    router.metric("dualpool_streams_open")  # starts the thread that renders admin pages
    before = _descriptors(router), _threads(router)
    clients = CLIENTS // len(MODES)
    asyncio.run(_all_vanish(port, clients))
    counts = _left(router, gateway, before)
    ends_s = time.monotonic() + WITHIN_S
    while any(counts) and time.monotonic() < ends_s:
        time.sleep(0.1)
        counts = _left(router, gateway, before)
    tracebacks = sum(log.read_text().count("traceback") for log in stack.folder.glob("router-*.log"))
    exceptions = router.metric("dualpool_exceptions_total")
    learned = router.metric(Server.RESPONSES_READ)
    asyncio.run(_stays(port))
    ends_s = time.monotonic() + WITHIN_S
    while router.metric(Server.RESPONSES_READ) == learned and time.monotonic() < ends_s:
        time.sleep(0.1)
    after = "learned" if router.metric(Server.RESPONSES_READ) == learned + 1 else "not learned"
    return (mode, str(clients), *map(str, counts), str(tracebacks), f"{exceptions:.0f}", after)


def _left(router: Server, gateway: Gateway, before: tuple[int, int]) -> tuple[int, int, int, int]:
    return (
        int(router.metric("dualpool_streams_open")),
        max(_descriptors(router) - before[0], 0),
        max(_threads(router) - before[1], 0),
        gateway.statistic("http.ingress.downstream_rq_active"),
    )


def _descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def _threads(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


async def _all_vanish(port: int, clients: int) -> None:
    places, moments = asyncio.Semaphore(AT_ONCE), list(MOMENTS.values())

    async def vanish(number: int) -> None:
        async with places, asyncio.timeout(WITHIN_S):
            client = await asyncio.open_connection("127.0.0.1", port)
            await moments[number % len(moments)](client)
            if number % 2:
                raw = client[1].get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client[1].transport.abort()

    await asyncio.gather(*(vanish(number) for number in range(clients)))


async def _stays(port: int) -> None:
    """Send one request and read its complete response."""
    client = await asyncio.open_connection("127.0.0.1", port)
    await _at_the_response(client)
    await client[0].readuntil(b"\r\n0\r\n\r\n")
    client[1].transport.abort()
