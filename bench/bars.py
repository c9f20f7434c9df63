"""The router compared with 0.1.0 and a minimal router in Go: its CPU, Envoy's CPU, and requests per second."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import messages
from bench.checks import MOST_GIVEN_UP, all_were_learned, all_were_placed, none_failed_open
from bench.earlier import NO_GO, minimal_go, version_0_1_0
from bench.load import grpc_load, http_load
from bench.measuring import Plan, Table, cpu_us_per_request, pairs, spread
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
LARGE = {"32 KB": 32 << 10, "256 KB": 256 << 10, "2 MB": 2 << 20}
LARGE_SHARE = 4  # large bodies are run with the plan's requests divided by this
CONNECTIONS = 32
SMALL_BAR, LARGE_BAR, ENVOY_BAR, RATE_BAR = "<= 0.38", "<= 0.5", "<= 0.85", ">= 2.2"
BEFORE, NOW, GO = "0.1.0", "now", "minimal Go"
CPU_NOTES = """\
CPU time (user and system, all threads) of the server process under direct load by h2load. Three servers take
turns: 0.1.0 from the repository's history, today's code, and, if Go is installed, a minimal router in Go
(`bench/minimal_go`: it decides and reads usage, and does nothing else). The load is the messages that Envoy sends
for a request and, if it is learned from, for its 1 KB JSON response; every response that can be learned from is.
Bodies are split as Envoy does for the client's protocol. Ratios are of the same round."""
RATE_NOTES = """\
Requests per second: released requests of 2 KB, posted over a few connections without pause, in the same runs as
above. The load generator runs on the same cores."""
ENVOY_NOTES = f"""\
CPU time of Envoy (`envoy/streamed.yaml`, one thread) and of the router: {CONNECTIONS} HTTP/1.1 connections,
released 2 KB chat requests; the pool is a second Envoy, whose time is not counted."""


@dataclass(frozen=True)
class _Case:
    """One kind of request, with its cost and rate (requests/s) at each server, by round."""

    name: str
    client: str
    frames: Path
    requests: int
    bar: str
    costs_us: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)

    @property
    def learned(self) -> bool:
        return self.name == "learned"


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure all cases at all servers in every round."""
    ours, before, go = stack.router(), version_0_1_0(stack), minimal_go(stack)
    servers = {BEFORE: before, NOW: ours} | ({} if go is None else {GO: go})
    cases = list(_cases(stack.folder, plan))
    for counts in [False] + [True] * plan.rounds:  # the first round is a warm-up and is not counted
        for case in cases:
            for name, server in servers.items():
                cost, rate = _run(server, case)
                if counts:
                    case.costs_us.setdefault(name, []).append(cost)
                    case.rates.setdefault(name, []).append(rate)
    learned = sum(case.requests * (plan.rounds + 1) for case in cases if case.learned)
    all_were_learned(ours, learned, but=int(learned * MOST_GIVEN_UP))
    all_were_placed(ours, sum(case.requests for case in cases) * (plan.rounds + 1))
    columns = ("exchange", "client", "0.1.0, us", "now, us", "now / 0.1.0", "bar", "minimal Go, us")
    rates = [_rate_row(case) for case in cases if case.name == "released"]
    rate_columns = ("client", "0.1.0, per s", "now, per s", "now / 0.1.0", "bar", "minimal Go, per s")
    return [
        Table("CPU per request, compared with 0.1.0", CPU_NOTES, columns, [_cpu_row(case) for case in cases]),
        Table("Requests per second of one process, compared with 0.1.0", RATE_NOTES, rate_columns, rates),
        _through_envoy(stack, plan, {BEFORE: before, NOW: ours}),
    ]


def _run(server: Server, case: _Case) -> tuple[float, float]:
    """Return the CPU time per request (us) and the requests per second."""
    rates: list[float] = []
    cost = cpu_us_per_request(
        server, case.requests, lambda: rates.append(grpc_load(server.address, case.frames, case.requests))
    )
    return cost, rates[0]


def _cases(folder: Path, plan: Plan) -> Sequence[_Case]:
    response = messages.response(messages.chat_response())
    cuts = {"HTTP/1.1": messages.http1_pieces, "HTTP/2": messages.http2_pieces}
    cases = []
    for client, cut in cuts.items():
        make = partial(_Case, client=client, requests=plan.requests, bar=SMALL_BAR)
        released = messages.request(cut(messages.chat_body(BODY_BYTES, stream=True)))
        learned = messages.request(cut(messages.chat_body(BODY_BYTES))) + response
        name = client.replace("/", "")
        cases.append(make("released", frames=_written(folder / f"released-{name}.frames", released)))
        cases.append(make("learned", frames=_written(folder / f"learned-{name}.frames", learned)))
    for size, body_bytes in LARGE.items():
        exchange = messages.request(messages.http1_pieces(messages.chat_body(body_bytes, stream=True)))
        file = _written(folder / f"{body_bytes}.frames", exchange)
        cases.append(_Case(f"{size} released", "HTTP/1.1", file, max(plan.requests // LARGE_SHARE, 1), LARGE_BAR))
    return cases


def _written(file: Path, exchange: Sequence[bytes]) -> Path:
    file.write_bytes(messages.frames(exchange))
    return file


def _cpu_row(case: _Case) -> Sequence[str]:
    costs = case.costs_us
    go = spread(costs[GO]) if GO in costs else NO_GO
    ratio = pairs(costs[NOW], costs[BEFORE])
    return (case.name, case.client, spread(costs[BEFORE]), spread(costs[NOW]), ratio, case.bar, go)


def _rate_row(case: _Case) -> Sequence[str]:
    rates = case.rates
    go = spread(rates[GO]) if GO in rates else NO_GO
    return (
        *(case.client, spread(rates[BEFORE]), spread(rates[NOW])),
        *(pairs(rates[NOW], rates[BEFORE]), RATE_BAR, go),
    )


def _through_envoy(stack: Stack, plan: Plan, servers: dict[str, Server]) -> Table:
    pool = stack.pool(messages.chat_response())
    ways = {name: (server, stack.gateway("streamed", server, pool)) for name, server in servers.items()}
    body = stack.folder / "released.json"
    body.write_bytes(messages.chat_body(BODY_BYTES, stream=True))
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for counts in [False] + [True] * plan.rounds:
        for name, way in ways.items():
            cost = _gateway_costs(plan, way, body)
            if counts:
                costs[name].append(cost)
    for _, gateway in ways.values():
        none_failed_open(gateway)
    rows = []
    for number, (what, bar) in enumerate((("router", SMALL_BAR), ("Envoy", ENVOY_BAR))):
        before, now = ([cost[number] for cost in costs[name]] for name in (BEFORE, NOW))
        rows.append((what, spread(before), spread(now), pairs(now, before), bar))
    columns = ("process", "with 0.1.0, us", "now, us", "now / 0.1.0", "bar")
    return Table("CPU per request through Envoy, compared with 0.1.0", ENVOY_NOTES, columns, rows)


def _gateway_costs(plan: Plan, way: tuple[Server, Gateway], body: Path) -> tuple[float, float]:
    server, gateway = way
    before = server.cpu_us(), gateway.cpu_us()
    http_load(gateway.address, body, plan.requests, CONNECTIONS)
    return (server.cpu_us() - before[0]) / plan.requests, (gateway.cpu_us() - before[1]) / plan.requests
