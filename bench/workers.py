"""The gain of a second worker: throughput of two compared with one, and how evenly Envoy spreads the traffic."""

import json
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

from bench import messages
from bench.checks import all_were_placed
from bench.load import grpc_load, http_load
from bench.measuring import Plan, Table, pairs, spread
from bench.stack import REPLIES_WITHIN_S, Server, Stack

__all__ = ["measure"]

BODY_BYTES = 2048
WORKERS = 2
CONNECTIONS = 32
BAR, SHARE_BAR = 1.7, "35 %"
NOTES = f"""\
Released exchanges, 2 KB chat requests, direct load by one h2load per worker; one process alternates with `dualpool
serve --workers {WORKERS}`. The load generators run on the same cores and take their share of them, so the requests
per second of wall-clock time are fewer than with a load from another machine. The capacity is computed from CPU
time: requests per second of CPU time of all processes, including the supervisor's, times the number of workers.
The bar applies to that. Two cores limit the gain in wall-clock time: if a request takes r us of the router and l
us of the load generator, with l below r, one process serves 1 / r per second, and two workers at most 2 / (r + l),
which is 2 r / (r + l) times as many."""
SHARE_NOTES = f"""\
Envoy from `envoy/workers.yaml` (one thread), {CONNECTIONS} HTTP/1.1 connections, 2 KB chat requests, of which the
router learns from none (released) or all (learned). Shown is the share of the worker that got fewer requests."""


@dataclass(frozen=True, slots=True)
class _Router:
    """The processes of one router; with workers, the last one is the supervisor."""

    processes: Sequence[Server]
    addresses: Sequence[str]

    def cpu_s(self) -> float:
        """Return the total CPU time of all processes so far."""
        return sum(each.cpu_us() for each in self.processes) / 1e6


@dataclass(frozen=True, slots=True)
class _Run:
    per_s: float
    per_core: float
    load_us: float


def measure(stack: Stack, plan: Plan) -> list[Table]:
    """Load one worker and several in every round; then several through Envoy."""
    file = stack.folder / "released.frames"
    file.write_bytes(messages.frames(messages.request(messages.http1_pieces(_chat_body(learned=False)))))
    one = stack.router()
    routers = {1: _Router([one], [one.address]), WORKERS: _workers(stack)}
    series: dict[int, list[_Run]] = {count: [] for count in routers}
    for counts in [False] + [True] * plan.rounds:
        for workers, router in routers.items():
            run = _run(router, file, plan.requests)
            if counts:
                series[workers].append(run)
    for workers, router in routers.items():
        all_were_placed(router.processes[-1], (plan.rounds + 1) * plan.requests * workers)
    rows = [(str(workers), *_cells(series[workers], series[1], workers)) for workers in routers]
    columns = (
        "workers",
        "requests/s",
        "/ one's",
        "per core x workers",
        "/ one's",
        "bar",
        "router, us",
        "load, us",
        "/ one's by the clock, at most",
    )
    return [Table("Throughput of two workers", NOTES, columns, rows), _sharing(stack, plan)]


def _cells(runs: Sequence[_Run], one: Sequence[_Run], workers: int) -> list[str]:
    rates, capacities = [run.per_s for run in runs], [run.per_core * workers for run in runs]
    raw, accounted = (
        pairs(rates, [run.per_s for run in one]),
        pairs(capacities, [run.per_core for run in one]),
    )
    router_us, load_us = [1e6 / run.per_core for run in runs], [run.load_us for run in runs]
    r, load = 1e6 / median([run.per_core for run in one]), median([run.load_us for run in one])
    most = f"{min(2 * r / (r + load), workers):.2f}" if r > load else "1.00"
    bar, most = (f"{BAR}", most) if workers > 1 else ("", "")
    return [spread(rates), raw, spread(capacities), accounted, bar, spread(router_us), spread(load_us), most]


def _run(router: _Router, file: Path, requests: int) -> _Run:
    """Load all addresses at once, each with `requests` requests."""
    before_s, load_before_s, began_s = router.cpu_s(), _load_cpu_s(), time.monotonic()
    with ThreadPoolExecutor(len(router.addresses)) as threads:
        list(threads.map(partial(grpc_load, frames=file, requests=requests), router.addresses))
    took_s = time.monotonic() - began_s
    total = requests * len(router.addresses)
    load_us = 1e6 * (_load_cpu_s() - load_before_s) / total
    return _Run(total / took_s, total / (router.cpu_s() - before_s), load_us)


def _load_cpu_s() -> float:
    """Return the CPU time of all exited children: the load generators, as long as no other child exits."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sharing(stack: Stack, plan: Plan) -> Table:
    router = _workers(stack)
    first, second = (Server(0, address) for address in router.addresses)
    pool = stack.pool(messages.chat_response())
    gateway = stack.gateway("workers", first, pool, change=partial(_add_endpoint, address=second.address))
    admin = router.processes[-1]
    rows = []
    for kind in ("released", "learned"):
        body = stack.folder / f"{kind}.json"
        body.write_bytes(_chat_body(learned=kind == "learned"))
        shares = []
        for counts in [False] + [True] * plan.rounds:
            before = _streams(admin)
            http_load(gateway.address, body, plan.requests, CONNECTIONS)
            served = [now - then for now, then in zip(_streams(admin), before, strict=True)]
            if counts:
                shares.append(100 * min(served) / sum(served))
        rows.append((kind, spread(shares), SHARE_BAR))
    return Table("How Envoy spreads the traffic", SHARE_NOTES, ("exchange", "smaller share, %", "bar"), rows)


def _workers(stack: Stack) -> _Router:
    supervisor, addresses = stack.workers(WORKERS)
    with urlopen(f"http://{supervisor.admin}/config", timeout=REPLIES_WITHIN_S) as response:
        pids = [worker["pid"] for worker in json.load(response)["workers"]]
    servers = [Server(pid, address) for pid, address in zip(pids, addresses, strict=True)]
    return _Router([*servers, supervisor], addresses)


def _streams(supervisor: Server) -> list[float]:
    return [supervisor.metric("dualpool_worker_streams_total", worker=str(number)) for number in range(WORKERS)]


def _chat_body(*, learned: bool) -> bytes:
    return messages.chat_body(BODY_BYTES, stream=not learned)


def _add_endpoint(document: dict[str, Any], address: str) -> None:
    """Set the second endpoint's real address; the stack has set the first."""
    (cluster,) = (each for each in document["static_resources"]["clusters"] if each["name"] == "dualpool")
    host, _, port = address.rpartition(":")
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][1]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": host, "port_value": int(port)}
