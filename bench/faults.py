"""Client-side errors and latency while a router is killed, stopped, or starved of memory or file descriptors."""

import asyncio
import os
import resource
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.clients import Seen, under_load
from bench.measuring import Plan, Table
from bench.numbered import chat_body
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

MODES = ("streamed", "buffered", "full-duplex")
CLIENTS = 50
BODIES = [chat_body(size) for size in (500, 2_000, 2_000, 8_000, 30_000, 300_000)]
ROUTER = "pools: [{name: short, max_budget_tokens: 8192}, {name: long, max_budget_tokens: 1000000}]\n"
KILLS, KILLED_EVERY_S = 8, 2.0
STOPPED_S = 30.0
STARVED_S = 10.0
# Less than a burst of 300 KB bodies needs.
MEMORY_LEFT_BYTES = 4 << 20
NOTES = f"""\
{CLIENTS} clients, each sending one request after another: chat requests of 0.5 to 300 KB, to pools that read all
of a request and respond immediately. Killed: SIGKILL every {KILLED_EVERY_S:.0f} s, {KILLS} times; each time a new
router is started on the same address. Stopped: SIGSTOP for {STOPPED_S:.0f} s. Memory: for {STARVED_S:.0f} s the
router's address space is limited to its present size plus {MEMORY_LEFT_BYTES >> 20} MB; if that kills it, a new
one is started. Descriptors: for {STARVED_S:.0f} s the limit is the number that it has open before Envoy connects,
so that it cannot accept connections. An error is a status other than 200, or no response. The longest request
waited for a router that did not reply. In full duplex up to one error per client and kill is unavoidable: the
bodies that a killed router holds are lost."""

Fault = Callable[["Victim"], Awaitable[None]]


class Victim:
    """The router of one run; `replace` starts another one on the same address."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.server: Server = stack.router(ROUTER)

    async def replace(self) -> None:
        """Start a router to replace one that has exited."""
        self.server = await asyncio.to_thread(self._stack.router, ROUTER, address=self.server.address)

    def kill(self) -> None:
        """Kill the router."""
        os.kill(self.server.pid, signal.SIGKILL)

    @property
    def ended(self) -> bool:
        """Whether the process has exited, for whatever reason."""
        status = Path(f"/proc/{self.server.pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


async def _kill_often(victim: Victim) -> None:
    await asyncio.sleep(1)
    for _ in range(KILLS):
        victim.kill()
        began_s = asyncio.get_running_loop().time()
        await victim.replace()
        await asyncio.sleep(max(KILLED_EVERY_S - (asyncio.get_running_loop().time() - began_s), 0))


async def _stop(victim: Victim) -> None:
    await asyncio.sleep(1)
    os.kill(victim.server.pid, signal.SIGSTOP)
    await asyncio.sleep(STOPPED_S)
    os.kill(victim.server.pid, signal.SIGCONT)
    await asyncio.sleep(1)


async def _starve_of_memory(victim: Victim) -> None:
    await asyncio.sleep(1)
    for _ in range(int(STARVED_S)):
        if victim.ended:
            await victim.replace()
        _limit(victim.server, resource.RLIMIT_AS, _address_space_bytes(victim.server) + MEMORY_LEFT_BYTES)
        await asyncio.sleep(1)
    if victim.ended:
        await victim.replace()
    _limit(victim.server, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    await asyncio.sleep(1)


async def _starve_of_descriptors(victim: Victim) -> None:
    """Wait, then lift the limit that was set before Envoy connected."""
    await asyncio.sleep(STARVED_S)
    _limit(victim.server, resource.RLIMIT_NOFILE, 1024)
    await asyncio.sleep(2)


def _address_space_bytes(server: Server) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[0]) * resource.getpagesize()


def _limit(server: Server, kind: int, value: int) -> None:
    _, hard = resource.prlimit(server.pid, kind)
    resource.prlimit(server.pid, kind, (value, hard))


FAULTS: dict[str, Fault] = {
    "killed": _kill_often,
    "stopped": _stop,
    "memory": _starve_of_memory,
    "descriptors": _starve_of_descriptors,
}


def measure(stack: Stack, _plan: Plan) -> list[Table]:
    """Apply each fault to a router under load, in each mode."""
    pools = {name: stack.printing("bench.numbered_pool", name).address for name in ("short", "long")}
    rows: list[Sequence[str]] = []
    for mode in MODES:
        for name, fault in FAULTS.items():
            victim = Victim(stack)
            if name == "descriptors":
                open_now = len(list(Path(f"/proc/{victim.server.pid}/fd").iterdir()))
                _limit(victim.server, resource.RLIMIT_NOFILE, open_now)
            gateway = stack.gateway(
                mode, victim.server, pools["long"], short_pool=pools["short"], change=_as_it_is
            )
            seen = asyncio.run(under_load(_port(gateway), BODIES, CLIENTS, fault(victim)))
            rows.append((mode, name, *_counts(seen)))
    columns = ("mode", "router", "requests", "errors", "by status", "corrupted", "short", "p50, ms", "longest, s")
    return [Table("Client errors while the router fails", NOTES, columns, rows)]


def _as_it_is(_document: dict[str, Any]) -> None:
    """Leave the configuration unchanged, including health checks."""


def _port(gateway: Gateway) -> int:
    return int(gateway.address.rpartition(":")[2])


def _counts(seen: Seen) -> list[str]:
    by_status = ", ".join(f"{status}: {count}" for status, count in sorted(seen.errors.items()))
    numbers = (seen.requests, seen.errors.total())
    short = f"{seen.short / max(seen.requests, 1):.0%}"
    times = (f"{median(seen.seconds) * 1000:.0f}", f"{max(seen.seconds):.1f}")
    return [*map(str, numbers), by_status, str(seen.corrupted), short, *times]
