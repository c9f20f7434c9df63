"""CPU per request of our server compared with the bare server, both loaded directly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import messages
from bench.checks import all_were_learned, all_were_placed
from bench.load import grpc_load
from bench.measuring import Plan, Table, cpu_us_per_request, pairs, spread
from bench.stack import Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
BARS = {"released": 1.25, "learned": 1.35}
NOTES = """\
CPU time (user and system, all threads) of the server process. The bare server reads the same messages and replies
with constants; ours is `dualpool serve`. h2load posts the messages that Envoy sends for a 2 KB chat request and,
if it is learned from, for its 1 KB JSON response. Released: the stream is closed after the decision. Learned:
every response is kept and learned from. HTTP/1.1 and HTTP/2 are the client's protocol: with HTTP/1.1 Envoy ends
the body with an empty message. Ratios are of the same round."""
PARTS_NOTES = """\
Released exchanges again, over HTTP/2, with more and more of our own logic removed; ratios are of the same round.
With a constant as the decision no body is parsed and nothing is estimated: what is left is converting messages to
events and back, the exchange, and metrics."""


@dataclass(frozen=True, slots=True)
class _Case:
    kind: str
    client: str
    request: list[bytes]

    def write(self, folder: Path) -> Path:
        response = messages.response(messages.chat_response()) if self.kind == "learned" else []
        file = folder / f"{self.kind}-{self.client.replace('/', '')}.frames"
        file.write_bytes(messages.frames([*self.request, *response]))
        return file


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure each kind of exchange; our server and the bare one alternate."""
    ours = stack.router()
    rows = [_row(stack, plan, ours, case) for case in _cases()]
    of_a_case = (plan.rounds + 1) * plan.requests
    all_were_learned(ours, of_a_case * 2)
    all_were_placed(ours, of_a_case * len(rows))
    columns = ("exchange", "client", "bare, us", "ours, us", "ours / bare", "bar")
    return [Table("CPU per request, direct load", NOTES, columns, rows), _without_parts(stack, plan)]


def _without_parts(stack: Stack, plan: Plan) -> Table:
    """Measure released exchanges of one client with more and more of our own logic removed."""
    case = next(each for each in _cases() if (each.kind, each.client) == ("released", "HTTP/2"))
    bare = stack.bare(case.kind, len(case.request))
    deciding = {
        "ours": stack.router(),
        "ours, with the paper's EMA": stack.router("estimator: {kind: ema}\n"),
    }
    servers = deciding | {"ours, every decision a constant": stack.router(module="bench.constant")}
    costs = _costs(plan, case.write(stack.folder), (bare, *servers.values()))
    for server in deciding.values():  # the constant is counted nowhere
        all_were_placed(server, (plan.rounds + 1) * plan.requests)
    rows = [("bare", spread(costs[bare]), "1")]
    rows += [(name, spread(costs[server]), pairs(costs[server], costs[bare])) for name, server in servers.items()]
    return Table("Cost of deciding and of the rest", PARTS_NOTES, ("server", "us", "/ bare"), rows)


def _cases() -> list[_Case]:
    cuts: tuple[tuple[str, Callable[[bytes], list[bytes]]], ...] = (
        ("HTTP/1.1", messages.http1_pieces),
        ("HTTP/2", messages.http2_pieces),
    )
    return [
        _Case(kind, client, messages.request(cut(messages.chat_body(BODY_BYTES, stream=kind == "released"))))
        for kind in BARS
        for client, cut in cuts
    ]


def _row(stack: Stack, plan: Plan, ours: Server, case: _Case) -> Sequence[str]:
    file = case.write(stack.folder)
    bare = stack.bare(case.kind, len(case.request))
    costs = _costs(plan, file, (bare, ours))
    ratio = pairs(costs[ours], costs[bare])
    return (case.kind, case.client, spread(costs[bare]), spread(costs[ours]), ratio, f"{BARS[case.kind]}")


def _costs(plan: Plan, file: Path, servers: Sequence[Server]) -> dict[Server, list[float]]:
    """Load the servers in turn in every round; return the CPU time of each round, in us per request."""
    costs: dict[Server, list[float]] = {server: [] for server in servers}
    for server in servers:  # warm-up, not measured
        grpc_load(server.address, file, plan.requests)
    for _ in range(plan.rounds):
        for server, series in costs.items():
            load = partial(grpc_load, server.address, file, plan.requests)
            series.append(cpu_us_per_request(server, plan.requests, load))
    return costs
