"""Overload: an open-loop load, in multiples of the rate that one process can serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import messages
from bench.load import grpc_load, open_loop_load
from bench.measuring import Plan, Table
from bench.stack import Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
MULTIPLES = (0.5, 1.0, 2.0, 5.0)
DURATION_S = 5
# Concurrent requests over all connections: what envoy/streamed.yaml leaves for decisions next to kept responses
# (max_requests 64, learning.max_streams 24), and what envoy/buffered.yaml allows.
LIMITS = (40, 1024)
NOTES = f"""\
Released 2 KB chat requests, direct load for {DURATION_S} s each. The load is an open loop: requests start at a
fixed rate however slow the replies are. As behind a gateway, the limit bounds the concurrent requests; requests
above it wait at the sender, where a gateway would let them pass undecided. The capacity of one process is measured
first, in a closed loop. Decided in time: placed by their budget; the others were given up (shed, or past the
deadline). p50 is over all replies, from the time of sending. Of the best: relative to the best row with that
limit. Errors: no status 200, or a stream that ended without a decision. CPU: the share of a core that the process
got; on a machine with other load only the last column is meaningful, and the p50 on a core of its own would be the
limit divided by it. Bars: at 5 x and the lower limit at least 90 % of the best, p50 below 20 ms, no error."""


@dataclass(frozen=True, slots=True)
class _Reading:
    multiple: float
    limit: int
    decided: float
    given_up: float
    cpu: float
    errors: int
    p50_ms: float


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure the router's capacity, then offer multiples of it."""
    router = stack.router()
    file = stack.folder / "released.frames"
    body = messages.chat_body(BODY_BYTES, stream=True)
    file.write_bytes(messages.frames(messages.request(messages.http2_pieces(body))))
    grpc_load(router.address, file, plan.requests)
    holds = grpc_load(router.address, file, plan.requests * 2)
    readings = [_offer(router, file, holds, limit, each) for limit in LIMITS for each in MULTIPLES]
    best = {limit: max(each.decided for each in readings if each.limit == limit) for limit in LIMITS}
    columns = (
        "limit",
        "offered",
        "offered/s",
        "decided in time/s",
        "of the best",
        "given up/s",
        "p50, ms",
        "errors",
        "CPU",
        "decided per s of CPU",
    )
    rows = [_row(reading, holds, best[reading.limit]) for reading in readings]
    return [Table(f"Overload: a process that can serve {holds:.0f} requests per second", NOTES, columns, rows)]


def _offer(router: Server, file: Path, holds: float, limit: int, multiple: float) -> _Reading:
    before, cpu_us = _placed(router), router.cpu_us()
    seen = open_loop_load(router.address, file, holds * multiple, limit, DURATION_S)
    cpu = (router.cpu_us() - cpu_us) / 1e6 / DURATION_S
    decided, given_up = (now - then for now, then in zip(_placed(router), before, strict=True))
    # A stream that the router ends with an error has the status 200, too, but it is placed nowhere.
    undecided = max(seen.responses - round(decided + given_up), 0)
    errors = seen.errors + undecided
    return _Reading(multiple, limit, decided / DURATION_S, given_up / DURATION_S, cpu, errors, seen.p50_ms)


def _placed(router: Server) -> tuple[float, float]:
    """Return how many requests were placed so far, and how many were given up."""
    placed = router.metric("dualpool_requests_total")
    given_up = sum(router.metric("dualpool_requests_total", reason=reason) for reason in ("shed", "deadline"))
    return placed - given_up, given_up


def _row(reading: _Reading, holds: float, best: float) -> Sequence[str]:
    return (
        *(f"{reading.limit}", f"{reading.multiple:g} x", f"{reading.multiple * holds:.0f}"),
        *(f"{reading.decided:.0f}", f"{reading.decided / best:.0%}", f"{reading.given_up:.0f}"),
        *(f"{reading.p50_ms:.1f}", f"{reading.errors}", f"{reading.cpu:.0%}"),
        f"{reading.decided / reading.cpu:.0f}",
    )
