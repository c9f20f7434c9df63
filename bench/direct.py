"""CPU per request of our server beside the bare one, both loaded directly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import messages
from bench.checks import all_were_learned
from bench.load import grpc_load
from bench.measuring import Plan, Table, cpu_us_per_request, pairs, spread
from bench.stack import Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
BARS = {"released": 1.25, "learned": 1.35}
NOTES = """\
CPU time (user and system, all threads) of the server process. The bare server reads the same messages and
answers with constants; ours is the real one, `dualpool serve`. h2load posts what Envoy sends of a 2 KB chat
request; of a learned one also its 1 KB JSON answer. Released: closed after the decision. Learned: everything is
kept. HTTP/1.1 and HTTP/2 are the client's: Envoy ends the body of the one with an empty message. Ratios are of the
same round."""


@dataclass(frozen=True, slots=True)
class _Case:
    kind: str
    client: str
    request: list[bytes]

    def write(self, folder: Path) -> Path:
        answer = messages.response(messages.chat_answer()) if self.kind == "learned" else []
        file = folder / f"{self.kind}-{self.client.replace('/', '')}.frames"
        file.write_bytes(messages.frames([*self.request, *answer]))
        return file


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure each kind of exchange in turn, ours and bare one after the other."""
    ours = stack.router()
    rows = [_row(stack, plan, ours, case) for case in _cases()]
    all_were_learned(ours, (plan.rounds + 1) * plan.requests * 2)
    columns = ("exchange", "client", "bare, us", "ours, us", "ours / bare", "bar")
    return [Table("CPU per request, direct load", NOTES, columns, rows)]


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
    costs: dict[Server, list[float]] = {bare: [], ours: []}
    for server in costs:  # once unmeasured: what happens at first only
        grpc_load(server.address, file, plan.requests)
    for _ in range(plan.rounds):
        for server, series in costs.items():
            load = partial(grpc_load, server.address, file, plan.requests)
            series.append(cpu_us_per_request(server, plan.requests, load))
    ratio = pairs(costs[ours], costs[bare])
    return (case.kind, case.client, spread(costs[bare]), spread(costs[ours]), ratio, f"{BARS[case.kind]}")
