"""The router as a separate process: `dualpool serve`, as deployed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.envoy.harness.forking import Forked
from tests.envoy.harness.process import ManagedProcess

__all__ = ["BRIEF", "CONFIGURATION", "SHORT_POOL_TOKENS", "TENANT_HEADER", "RouterProcess", "metric_of"]

SHORT_POOL_TOKENS = 2048
TENANT_HEADER = "x-tenant"
# So long that no machine is late, and shorter than the gateways of the tests wait.
EXCHANGE: dict[str, object] = {"deadline_ms": 20_000}
# For tests that wait for the deadline.
BRIEF: dict[str, object] = {"deadline_ms": 400}
CONFIGURATION: dict[str, object] = {
    "listen": {"address": "127.0.0.1:0"},
    "admin": {"address": "127.0.0.1:0"},
    "pools": [
        {"name": "short", "max_budget_tokens": SHORT_POOL_TOKENS},
        {"name": "long", "max_budget_tokens": 65536},
    ],
    # Each test sends a value of its own in this header, so that it has its own category and learns separately.
    "tenant_header": TENANT_HEADER,
    # Learn from every response, however many requests the tests send.
    "learning": {"messages_per_s": 1e6, "burst_messages": 1e6},
    "exchange": EXCHANGE,
    "drain_s": 0.5,
    "log_level": "debug",
}


class RouterProcess(ManagedProcess):
    """A running router; `settings` replace top-level keys of the tests' configuration, `exchange` single ones."""

    def __init__(self, folder: Path, **settings: object) -> None:
        config, exchange = folder / "router.yaml", settings.pop("exchange", {})
        assert isinstance(exchange, dict)
        config.write_text(json.dumps(CONFIGURATION | {"exchange": EXCHANGE | exchange} | settings))
        super().__init__("router", ["serve", "--config", str(config)], folder)
        serving = json.loads(self.await_log('"message":"serving"'))
        self.address: str = serving["grpc"]
        self.admin.base_url = f"http://{serving['admin']}"

    @staticmethod
    def _start(command: Sequence[str], out_file: Path, err_file: Path) -> Forked:
        out_file.touch()
        err_file.touch()
        return Forked(command, out_file, err_file)

    def state(self) -> list[dict[str, Any]]:
        """Return the learned state, one row per category."""
        response = self.admin.get("/state").raise_for_status()
        rows: list[dict[str, Any]] = response.json().get("categories", [])
        return rows

    def observations(self, tenant: str) -> int:
        """Return how many responses were learned from in a tenant's category."""
        return sum(int(row["observations"]) for row in self.state() if tenant in row.get("key", ""))

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return metric_of(self._metrics(), name, **labels)

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and value of every sample of this name."""
        return _samples_of(self._metrics(), name)

    def _metrics(self) -> str:
        return self.admin.get("/metrics").raise_for_status().text


def metric_of(text: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels; `text` is the body of /metrics."""
    return sum(value for its, value in _samples_of(text, name) if labels.items() <= its.items())


def _samples_of(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    assert f"# TYPE {name.removesuffix('_count')} " in text, f"the router has no metric {name}"
    # Parsing all the other histograms would take milliseconds.
    wanted = "".join(line + "\n" for line in text.splitlines() if line.startswith(name))
    families = text_string_to_metric_families(wanted)
    return [(dict(s.labels), s.value) for family in families for s in family.samples if s.name == name]
