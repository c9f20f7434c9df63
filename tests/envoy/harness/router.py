"""The router as a process of its own: `dualpool serve`, as it is deployed."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.envoy.harness.process import ManagedProcess

__all__ = ["SHORT_POOL_TOKENS", "RouterProcess"]

SHORT_POOL_TOKENS = 2048
_CONFIGURATION: dict[str, object] = {
    "listen": {"address": "127.0.0.1:0"},
    "admin": {"address": "127.0.0.1:0"},
    "pools": [
        {"name": "short", "max_budget_tokens": SHORT_POOL_TOKENS},
        {"name": "long", "max_budget_tokens": 65536},
    ],
    # Tests call themselves by this header, so that each has a category, and its learning, of its own.
    "tenant_header": "x-tenant",
    # Everything is learned from, however much the tests send.
    "learning": {"messages_per_s": 1e6, "burst_messages": 1e6},
    "drain_s": 0.5,
    "log_level": "debug",
}


class RouterProcess(ManagedProcess):
    """A router that serves; `settings` replace top-level keys of the tests' configuration."""

    def __init__(self, folder: Path, **settings: object) -> None:
        config = folder / "router.yaml"
        config.write_text(yaml.safe_dump(_CONFIGURATION | settings))
        command = [sys.executable, "-m", "extproc.cli.main", "serve", "--config", str(config)]
        super().__init__("router", command, folder)
        serving = json.loads(self.await_log('"message":"serving"'))
        self.address: str = serving["grpc"]
        self.admin_url = f"http://{serving['admin']}"

    def state(self) -> list[dict[str, Any]]:
        """Return what is learned, one row per category."""
        answer = httpx.get(f"{self.admin_url}/state", timeout=10).raise_for_status()
        rows: list[dict[str, Any]] = answer.json().get("categories", [])
        return rows

    def observations(self, tenant: str) -> int:
        """Return how many answers taught the category of a tenant."""
        return sum(int(row["observations"]) for row in self.state() if tenant in row["key"])

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric over the samples that have these labels."""
        return sum(
            value for sample, its, value in self._samples() if sample == name and labels.items() <= its.items()
        )

    def _samples(self) -> Iterable[tuple[str, dict[str, str], float]]:
        text = httpx.get(f"{self.admin_url}/metrics", timeout=10).raise_for_status().text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield sample.name, dict(sample.labels), sample.value
