"""Latency that the filter adds in Envoy, on one connection, in each request body mode."""

from collections.abc import Sequence
from statistics import median, quantiles

from bench import messages
from bench.checks import all_were_learned, none_failed_open
from bench.load import http_load
from bench.measuring import Plan, Table, spread
from bench.stack import Gateway, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
MODES = ("streamed", "buffered", "full-duplex")
BARRED, BARS_MS = ("streamed", "released"), ("<= 0.6", "<= 1.0")
NOTES = """\
One HTTP/1.1 connection, one request at a time: a 2 KB chat request and a 1 KB JSON response, measured at the
client (h2load). The pool is an Envoy that responds with a constant. Added: the percentile with the filter minus
that of the same Envoy's listener without the filter, in the same round. Only responses that are learned from pass
the router."""


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Measure all modes, with and without the filter, in every round."""
    requests = max(plan.requests // 4, 20)
    pool = stack.pool(messages.chat_response())
    router = stack.router()
    gateways = {mode: stack.gateway(mode, router, pool) for mode in MODES}
    rows: list[Sequence[str]] = []
    for kind in ("released", "learned"):
        body = stack.folder / f"{kind}.json"
        body.write_bytes(messages.chat_body(BODY_BYTES, stream=kind == "released"))
        rounds: dict[str, list[_Pair]] = {mode: [] for mode in MODES}
        for number in range(plan.rounds + 1):
            for mode, gateway in gateways.items():
                pair = _Pair(stack, gateway, body.name, requests)
                if number > 0:  # the first round opens connections and warms up; it is not counted
                    rounds[mode].append(pair)
        rows += [_row(mode, kind, rounds[mode]) for mode in MODES]
    for gateway in gateways.values():
        none_failed_open(gateway)
    all_were_learned(router, (plan.rounds + 1) * requests * len(MODES))
    columns = (
        *("mode", "exchange", "p50 without, ms", "p50, ms", "added p50, ms"),
        *("bar", "p99 without, ms", "p99, ms", "added p99, ms", "bar"),
    )
    return [Table("Latency through Envoy on one connection", NOTES, columns, rows)]


class _Pair:
    """Percentiles without and with the filter, in ms, measured one right after the other."""

    def __init__(self, stack: Stack, gateway: Gateway, body: str, requests: int) -> None:
        log = stack.folder / "latencies"
        self.without, self.with_filter = (
            _percentiles(http_load(url, stack.folder / body, requests, 1, log))
            for url in (gateway.plain, gateway.address)
        )


def _row(mode: str, kind: str, pairs: list[_Pair]) -> Sequence[str]:
    cells = [mode, kind]
    for percentile in range(2):
        added = [pair.with_filter[percentile] - pair.without[percentile] for pair in pairs]
        cells += [f"{median(pair.without[percentile] for pair in pairs):.2f}"]
        cells += [f"{median(pair.with_filter[percentile] for pair in pairs):.2f}", spread(added, 2)]
        cells.append(BARS_MS[percentile] if (mode, kind) == BARRED else "")
    return cells


def _percentiles(times_us: list[int]) -> tuple[float, float]:
    """Return p50 and p99, in ms."""
    return median(times_us) / 1000, quantiles(times_us, n=100)[98] / 1000
