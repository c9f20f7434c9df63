"""CPU per request as a function of body size."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import messages
from bench.checks import all_were_placed
from bench.load import grpc_load
from bench.measuring import Plan, Table, cpu_us_per_request, pairs, spread
from bench.stack import Server, Stack
from extproc.config.schema import Configuration
from extproc.core.facts import Api
from extproc.core.placing.early import EarlyRule
from extproc.core.placing.policy import Pools

__all__ = ["measure"]

SIZES = {"2 KB": 2 << 10, "32 KB": 32 << 10, "256 KB": 256 << 10, "2 MB": 2 << 20}
CUTS = {"HTTP/1.1": messages.http1_pieces, "HTTP/2": messages.http2_pieces}
# The rule by which the measured router, with its default pools, decides before the end of a body.
DEFAULTS = Configuration()
EARLY = EarlyRule(Pools(DEFAULTS.pools).largest_optional_tokens, DEFAULTS.exchange.max_held_bytes)
NOTES = f"""\
Released chat requests of English text, direct load, split into messages as Envoy 1.40 does: the body of an
HTTP/1.1 client into 16 KiB, then what has arrived (on loopback everything, up to 1 MiB per piece); the body of an
HTTP/2 client into frames of 16 KiB. From {EARLY.text_bytes:,} bytes on a body is sent to the long pool without
waiting for its end or parsing it; the piece in which that happens is still received in full, so a large piece has
its cost in the transport. The bare server reads the same messages up to that point."""


@dataclass(frozen=True)
class _Case:
    client: str
    size: str
    frames: Path
    bare: Server
    bare_us: list[float] = field(default_factory=list)
    ours_us: list[float] = field(default_factory=list)


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure all sizes, split for both protocols, in every round."""
    requests = max(plan.requests // 4, 1)
    ours = stack.router()
    cases = [_case(stack, client, size) for client in CUTS for size in SIZES]
    for round_number in range(plan.rounds + 1):
        for case in cases:
            for server, series in ((case.bare, case.bare_us), (ours, case.ours_us)):
                load = partial(grpc_load, server.address, case.frames, requests)
                cost = cpu_us_per_request(server, requests, load)
                if round_number > 0:  # the first round is a warm-up and is not counted
                    series.append(cost)
    all_were_placed(ours, requests * (plan.rounds + 1) * len(cases))
    columns = ("client", "body", "bare, us", "ours, us", "ours / bare", "ours / ours at 2 KB")
    smallest = {case.client: case for case in reversed(cases)}
    rows = [_row(case, smallest[case.client]) for case in cases]
    return [Table("CPU per request by body size", NOTES, columns, rows)]


def _row(case: _Case, smallest: _Case) -> tuple[str, ...]:
    return (
        *(case.client, case.size, spread(case.bare_us), spread(case.ours_us)),
        *(pairs(case.ours_us, case.bare_us), pairs(case.ours_us, smallest.ours_us, 1)),
    )


def _case(stack: Stack, client: str, size: str) -> _Case:
    pieces = CUTS[client](messages.chat_body(SIZES[size], stream=True))
    file = stack.folder / f"{SIZES[size]}-{client.replace('/', '')}.frames"
    file.write_bytes(messages.frames(messages.request(pieces)))
    return _Case(client, size, file, stack.bare("released", 1 + _pieces_read(pieces)))


def _pieces_read(pieces: list[bytes]) -> int:
    """Return how many pieces arrive before the decision."""
    seen = b""
    for number, piece in enumerate(pieces, 1):
        seen += piece
        if EARLY.next_look(Api.CHAT, seen) == 0:
            return number
    return len(pieces)
