"""CPU per request of our server and of Envoy, compared with the bare server and with no filter."""

from collections.abc import Sequence
from pathlib import Path

from bench import messages
from bench.checks import all_were_learned, all_were_placed, none_failed_open
from bench.load import http_load
from bench.measuring import Plan, Table, pairs, spread
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
REQUEST_MESSAGES = 3
CONNECTIONS = 32
BARS = {"released": 1.25, "learned": 1.35}
NOTES = f"""\
Envoy from `envoy/streamed.yaml` (one worker), {CONNECTIONS} HTTP/1.1 connections, 2 KB chat requests, 1 KB JSON
responses. The pool is a second Envoy that responds with a constant and whose time is not counted. Without: the
same Envoy's listener without the filter. Ratios are of the same round."""


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure both kinds of exchange; ours, bare and no filter alternate."""
    pool = stack.pool(messages.chat_response())
    ours = stack.router()
    gateway = stack.gateway("streamed", ours, pool)
    rows = []
    for kind in BARS:
        bare = stack.bare(kind, REQUEST_MESSAGES)
        rows.append(_row(stack, plan, kind, (bare, stack.gateway("streamed", bare, pool)), (ours, gateway)))
    all_were_learned(ours, (plan.rounds + 1) * plan.requests)
    all_were_placed(ours, (plan.rounds + 1) * plan.requests * len(BARS))
    columns = (
        *("exchange", "bare, us", "ours, us", "ours / bare", "bar"),
        *("Envoy, without, us", "Envoy, bare, us", "Envoy, ours, us", "Envoy ours / bare"),
    )
    return [Table("CPU per request through Envoy", NOTES, columns, rows)]


def _row(
    stack: Stack, plan: Plan, kind: str, bare: tuple[Server, Gateway], ours: tuple[Server, Gateway]
) -> Sequence[str]:
    body = stack.folder / f"{kind}.json"
    body.write_bytes(messages.chat_body(BODY_BYTES, stream=kind == "released"))
    series: dict[str, list[float]] = {name: [] for name in ("bare", "ours", "e-without", "e-bare", "e-ours")}
    for counts in [False] + [True] * plan.rounds:
        for name, (server, gateway) in (("bare", bare), ("ours", ours)):
            costs = _costs(plan, (server, gateway), gateway.address, body)
            if counts:
                series[name].append(costs[0])
                series[f"e-{name}"].append(costs[1])
        without = _costs(plan, ours, ours[1].plain, body)
        if counts:
            series["e-without"].append(without[1])
    for _, gateway in (bare, ours):
        none_failed_open(gateway)
    return (
        *(kind, spread(series["bare"]), spread(series["ours"]), pairs(series["ours"], series["bare"])),
        *(f"{BARS[kind]}", spread(series["e-without"]), spread(series["e-bare"]), spread(series["e-ours"])),
        pairs(series["e-ours"], series["e-bare"]),
    )


def _costs(plan: Plan, servers: tuple[Server, Gateway], url: str, body: Path) -> list[float]:
    """Run a load and return the CPU time that each server took during it, in us per request."""
    before = [server.cpu_us() for server in servers]
    http_load(url, body, plan.requests, CONNECTIONS)
    return [(server.cpu_us() - start) / plan.requests for server, start in zip(servers, before, strict=True)]
