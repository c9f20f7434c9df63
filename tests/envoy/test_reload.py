"""The configuration file is replaced repeatedly under load, every other time with an invalid one."""

import asyncio
import json
import signal
from functools import partial
from pathlib import Path

from bench.clients import under_load
from bench.numbered import chat_body
from tests.envoy.harness.building import addresses
from tests.envoy.harness.gateway import Gateway
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.router import RouterProcess

REPLACED, CLIENTS = 50, 8
BODIES = [chat_body(size) for size in (500, 2_000, 40_000)]
BAD = [
    '{"mode": "on"}',
    "{",
    '{"pools": []}',
    '{"exchange": {"deadline_ms": 0}}',
    '{"listen": {"tls": {"certificate_file": 1}}}',
]


def changed(settings: dict[str, object], number: int) -> str:
    """Return a configuration whose thresholds, limits and options differ from the previous one's."""
    short = {"name": "short", "max_budget_tokens": 500 + 100 * (number % 20)}
    more = {
        "pools": [short, {"name": "long", "max_budget_tokens": 65536}],
        "exchange": {"deadline_ms": 120 + number},
        "estimator": {"byteclass": {"epsilon": 0.01 + number / 1000}},
        "learning": {"messages_per_s": 1e6 + number, "burst_messages": 1e6},
        "log_level": "info" if number % 4 else "warning",
    }
    return json.dumps(settings | more)


def replace_often(router: RouterProcess, file: Path) -> None:
    """Replace the file as an editor does, and wait until the router has read it; every other one is invalid."""
    settings = json.loads(file.read_text())
    for number in range(REPLACED):
        text = BAD[number // 2 % len(BAD)] if number % 2 else changed(settings, number)
        (file.parent / "next").write_text(text)
        (file.parent / "next").rename(file)
        router.signal(signal.SIGHUP)
        eventually(partial(has_read, router, number + 1), f"reload {number} of the file")


def has_read(router: RouterProcess, files: int) -> bool:
    """Return whether the router has read exactly `files` changed files."""
    return router.metric("dualpool_config_reloads_total") == files


def test_the_configuration_is_replaced_under_load(mode: str, tmp_path: Path, pools: Pools) -> None:
    """With 50 reloads, half of them invalid, no request fails, no body changes, and learned state survives."""
    router = RouterProcess(tmp_path)
    gateway = Gateway(mode, addresses(router.address, pools), tmp_path)
    try:
        opened = router.metric("process_open_fds")
        replacing = asyncio.to_thread(replace_often, router, tmp_path / "router.yaml")
        seen = asyncio.run(under_load(gateway.port, BODIES, CLIENTS, replacing))
        assert (0, 0) == (seen.errors.total(), seen.corrupted)
        assert 0 < seen.short < seen.requests
        outcomes = {labels["outcome"]: value for labels, value in router.samples("dualpool_config_reloads_total")}
        assert {"applied": REPLACED / 2, "refused": REPLACED / 2} == outcomes
        assert 0 == router.metric("dualpool_exceptions_total"), router.log_tail()
        learned = router.metric("dualpool_estimate_ratio_count")
        # Requests in flight when the estimator's options change are learned from by the old estimator.
        kept = sum(int(row["observations"]) for row in router.admin.get("/state").json()["models"])
        assert learned - REPLACED // 2 * CLIENTS <= kept <= learned
        eventually(lambda: router.metric("dualpool_streams_open") == 0, "all streams have ended")
        # Envoy keeps its connections open.
        eventually(lambda: router.metric("process_open_fds") <= opened + CLIENTS, "files and sockets are closed")
    finally:
        gateway.terminate()
        router.kill()
