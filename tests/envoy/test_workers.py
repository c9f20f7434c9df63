"""A router with two workers behind the real Envoy, with `envoy/workers.yaml`."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.clients import under_load
from bench.numbered import chat_body
from tests.envoy.harness.building import addresses
from tests.envoy.harness.gateway import Document, Gateway, cluster
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.process import ManagedProcess
from tests.envoy.harness.router import CONFIGURATION, metric_of

CLIENTS = 8
BODIES = [chat_body(size) for size in (500, 2_000, 40_000)]
KILLED_FOR_S, KILLED_EVERY_S = 10, 1.0


class WorkersProcess(ManagedProcess):
    """`dualpool serve --workers 2`, and an Envoy that asks both workers."""

    def __init__(self, folder: Path, pools: Pools) -> None:
        config = folder / "router.yaml"
        config.write_text(json.dumps(CONFIGURATION))
        command = [sys.executable, "-m", "extproc.cli.main", "serve", "--workers", "2", "--config", str(config)]
        super().__init__("router", command, folder)
        serving = json.loads(self.await_log('"message":"serving"'))
        self.addresses: list[str] = serving["grpc"]
        self.admin.base_url = f"http://{serving['admin']}"
        self.gateway = Gateway("workers", addresses(self.addresses[0], pools), folder, self._change)

    def pids(self) -> list[int | None]:
        """Return the workers' process ids; None for one that is being replaced."""
        return [worker["pid"] for worker in self.admin.get("/config").json()["workers"]]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return metric_of(self.admin.get("/metrics").raise_for_status().text, name, **labels)

    def _change(self, document: Document) -> None:
        """Change the address of the second endpoint; the harness has changed only the first."""
        endpoint: dict[str, Any] = cluster(document, "dualpool")["load_assignment"]["endpoints"][0][
            "lb_endpoints"
        ][1]
        host, _, port = self.addresses[1].rpartition(":")
        endpoint["endpoint"]["address"]["socket_address"] = {"address": host, "port_value": int(port)}


@pytest.fixture
def workers(tmp_path: Path, pools: Pools) -> Iterator[WorkersProcess]:
    """Run a router with two workers and its Envoy."""
    router = WorkersProcess(tmp_path, pools)
    yield router
    router.gateway.terminate()
    assert 0 == router.terminate(), router.log_tail()


def shares(workers: WorkersProcess) -> list[float]:
    """Return the share of the streams that each worker has served."""
    served = [workers.metric("dualpool_worker_streams_total", worker=str(number)) for number in range(2)]
    return [each / sum(served) for each in served]


def test_both_workers_share_the_traffic(workers: WorkersProcess) -> None:
    """Each worker gets at least 35 % of the traffic, and their counters add up to all of it."""

    def until_enough() -> None:
        eventually(lambda: workers.metric("dualpool_streams_total") >= 400, "400 requests", within_s=60)

    seen = asyncio.run(under_load(workers.gateway.port, BODIES, CLIENTS, asyncio.to_thread(until_enough)))
    assert (0, 0) == (seen.errors.total(), seen.corrupted)
    eventually(lambda: workers.metric("dualpool_streams_total") == seen.requests, "all streams have ended")
    assert min(shares(workers)) >= 0.35


def descriptors(workers: WorkersProcess) -> int:
    """Return how many files and sockets the supervisor has open."""
    return len(list(Path(f"/proc/{workers.pid}/fd").iterdir()))


def kill_often(workers: WorkersProcess, killed: list[int]) -> None:
    """Kill the workers in turn, one every second, even one that has just started."""
    pause, ends_s, number = threading.Event(), time.monotonic() + KILLED_FOR_S, 0
    while time.monotonic() < ends_s:
        pids = workers.pids()
        number = 1 - number if pids[1 - number] is not None else number
        if (pid := pids[number]) is not None:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        pause.wait(KILLED_EVERY_S)


def test_a_worker_is_killed_every_second(workers: WorkersProcess) -> None:
    """For 10 s under load, no client sees an error and no body changes; then both workers serve again."""
    killed: list[int] = []
    opened = descriptors(workers)
    killing = asyncio.to_thread(kill_often, workers, killed)
    seen = asyncio.run(under_load(workers.gateway.port, BODIES, CLIENTS, killing))
    assert (0, 0) == (seen.errors.total(), seen.corrupted)
    assert len(set(killed)) >= KILLED_FOR_S / 4
    assert seen.short > 0
    eventually(lambda: workers.metric("dualpool_workers_serving") == 2, "both serve again", within_s=60)
    eventually(lambda: descriptors(workers) <= opened + 2, f"no more than {opened} descriptors are left open")
