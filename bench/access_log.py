"""Cost of learning from Envoy's access log, compared with learning from responses and with not learning."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import messages
from bench.checks import all_were_placed, none_failed_open
from bench.load import LoadFailed, http_load
from bench.measuring import Plan, Table, spread
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
EVENTS = 64
CONNECTIONS = 16
MESSAGE_ENTRIES = 32  # Envoy's buffer of 16 KiB holds about 18
# Pause after each run: Envoy sends the rest of its log within a second.
SETTLES_S = 1.2
BAR_US = 50
RELEASED, FROM_RESPONSES, FROM_LOG = "released", "learned from responses", "learned from the log"
UNLEARNED = "the log, opened but not learned from"
LOGGED = (FROM_LOG, UNLEARNED)
WAYS = (RELEASED, FROM_RESPONSES, *LOGGED)
# All entries of a run are processed at once, so that their cost is measured.
LEARNING = {
    RELEASED: "{burst_messages: 0}",
    **dict.fromkeys(LOGGED, "{source: access_log, access_log: {max_cpu_share: 1}}"),
}
NOTES = f"""\
CPU time of the router and of Envoy (one thread) per request: 2 KB chat requests on {CONNECTIONS} HTTP/1.1
connections. JSON: a response of 1 KB. SSE: {EVENTS} events, of which the last is usage. Released:
`envoy/streamed.yaml`, nothing is learned. From the log: `envoy/streamed-access-log.yaml`, every request is learned
from, and the time includes the work on its log entry; the same without the estimator, as if learning took no time
(`bench/unlearned.py`). Above released: difference within the same round."""


@dataclass(frozen=True)
class _Way:
    name: str
    router: Server
    gateway: Gateway


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure each way of learning in every round, for JSON and for SSE."""
    rows: list[Sequence[str]] = []
    pools = {
        "JSON": stack.pool(messages.chat_response()),
        "SSE": stack.printing("bench.sse_pool", str(EVENTS), "0").address,
    }
    for kind, pool in pools.items():
        rows += _rows(stack, plan, kind, [_way(stack, name, pool) for name in WAYS])
    columns = ("responses", "way", "router, us", "above released, us", "bar", "Envoy, us")
    return [Table("Learning from the access log", NOTES, columns, rows)]


def _way(stack: Stack, name: str, pool: str) -> _Way:
    learning = LEARNING.get(name)
    module = "bench.unlearned" if name == UNLEARNED else "extproc.cli.main"
    router = stack.router() if learning is None else stack.router(module=module, learning=learning)
    mode = "streamed-access-log" if name in LOGGED else "streamed"
    return _Way(name, router, stack.gateway(mode, router, pool))


def _rows(stack: Stack, plan: Plan, kind: str, ways: Sequence[_Way]) -> list[Sequence[str]]:
    body = stack.folder / f"{kind}.json"
    body.write_bytes(messages.chat_body(BODY_BYTES, stream=kind == "SSE", include_usage=kind == "SSE"))
    costs: dict[str, tuple[list[float], list[float]]] = {way.name: ([], []) for way in ways}
    learned = dict.fromkeys(costs, 0.0)
    for number in range(plan.rounds + 1):  # the first round is a warm-up and is not counted
        for way in ways:
            before = way.router.cpu_us(), way.gateway.cpu_us()
            http_load(way.gateway.address, body, plan.requests, CONNECTIONS)
            learned[way.name] = _await_learned(way, learned[way.name], plan.requests)
            after = way.router.cpu_us(), way.gateway.cpu_us()
            if number:
                for series, start, end in zip(costs[way.name], before, after, strict=True):
                    series.append((end - start) / plan.requests)
    for way in ways:
        none_failed_open(way.gateway)
        all_were_placed(way.router, (plan.rounds + 1) * plan.requests)
    released = costs[RELEASED][0]
    rows: list[Sequence[str]] = []
    for name, (router, envoy) in costs.items():
        above = [each - base for each, base in zip(router, released, strict=True)]
        bar = str(BAR_US) if name == FROM_LOG else ""
        rows.append((kind, name, spread(router), "" if name == RELEASED else spread(above), bar, spread(envoy)))
    return rows


def _await_learned(way: _Way, before: float, requests: int) -> float:
    """Wait for the last entries; return how many responses were learned from so far, `before` of them earlier.

    A scrape of the metrics costs the router more than an entry, so normally there is only one per run. Raises
    LoadFailed if more than a message of entries is missing: Envoy may lose one when a stream is ended.
    """
    wanted = before if way.name == RELEASED else before + requests
    time.sleep(SETTLES_S)
    found = way.router.metric(Server.RESPONSES_READ)
    while found != wanted:
        time.sleep(SETTLES_S)
        earlier, found = found, way.router.metric(Server.RESPONSES_READ)
        if found == earlier and wanted - found <= MESSAGE_ENTRIES:
            break
        if found == earlier:
            raise LoadFailed(f"{way.name}: learned from {found:.0f} responses, expected {wanted:.0f}")
    return found
