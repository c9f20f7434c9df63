"""Cost of a long SSE response, released and learned from."""

from collections.abc import Sequence

from bench import messages
from bench.load import http_load
from bench.measuring import Plan, Table, spread
from bench.stack import Gateway, Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
EVENTS = 1000
INTERVAL_MS = 2
CONNECTIONS = 4
BAR_US = 60_000
NOTES = f"""\
Envoy from `envoy/streamed.yaml`; a pool that writes {EVENTS:,} events, one every {INTERVAL_MS} ms. Counters of
Envoy's ext_proc filter, per response: messages sent to the router, messages received from it, and streams closed.
The request takes three messages: headers, body, and its empty end. If more were sent, events passed the router.
Envoy merges events that it reads at the same time."""


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure released and learned responses in turn."""
    responses = max(plan.requests // 100, CONNECTIONS)
    pool = stack.printing("bench.sse_pool", str(EVENTS), str(INTERVAL_MS))
    ours = stack.router()
    gateway = stack.gateway("streamed", ours, pool.address)
    rounds = max(plan.rounds // 2, 1)
    rows = [_row(stack, (ours, gateway), kind, responses, rounds) for kind in ("released", "learned")]
    columns = (
        *("exchange", "sent per response", "received per response", "streams closed per response"),
        *("learned from per response", "router, us per response", "bar", "Envoy, us per response"),
    )
    return [Table(f"An SSE response of {EVENTS:,} events", NOTES, columns, rows)]


def _row(stack: Stack, servers: tuple[Server, Gateway], kind: str, responses: int, rounds: int) -> Sequence[str]:
    _, gateway = servers
    body = stack.folder / f"{kind}.json"
    body.write_bytes(messages.chat_body(BODY_BYTES, stream=True, include_usage=kind == "learned"))
    http_load(gateway.address, body, responses, CONNECTIONS)
    counted = _counters(servers)
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        before = [server.cpu_us() for server in servers]
        http_load(gateway.address, body, responses, CONNECTIONS)
        for series, server, start in zip(costs, servers, before, strict=True):
            series.append((server.cpu_us() - start) / responses)
    per_response = [
        f"{(now - then) / (responses * rounds):.1f}" for now, then in zip(_counters(servers), counted, strict=True)
    ]
    ours_us, envoy_us = map(spread, costs)
    return (kind, *per_response, ours_us, f"<= {BAR_US:,}" if kind == "learned" else "", envoy_us)


def _counters(servers: tuple[Server, Gateway]) -> list[float]:
    ours, gateway = servers
    names = ("stream_msgs_sent", "stream_msgs_received", "streams_closed")
    of_envoy = [gateway.statistic(f"http.ingress.ext_proc.{name}") for name in names]
    return [*of_envoy, ours.metric(Server.RESPONSES_READ)]
