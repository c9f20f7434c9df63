"""The real Envoy, run from the files in `envoy/`; only addresses and what a test edits are changed."""

import json
import shutil
import sysconfig
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx

from extproc.documents import read_document
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.process import ManagedProcess
from tests.envoy.harness.router import TENANT_HEADER

__all__ = [
    "FILES",
    "Document",
    "Envoy",
    "Gateway",
    "checks_often",
    "closes_soon",
    "cluster",
    "connection_manager",
    "envoy_binary",
    "ext_proc",
    "load",
    "moved_to",
    "route",
    "virtual_host",
    "waits_briefly",
]

FILES = Path(__file__).parents[3] / "envoy"
Document = dict[str, Any]


def load(mode: str) -> Document:
    """Return the parsed configuration of a mode."""
    return deepcopy(_parsed(mode))


@cache
def _parsed(mode: str) -> Document:
    return cast(Document, read_document((FILES / f"{mode}.yaml").read_text()))


def connection_manager(document: Document) -> Document:
    """Return the HTTP connection manager's settings."""
    filters = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    settings: Document = filters[0]["typed_config"]
    return settings


def ext_proc(document: Document) -> Document:
    """Return the settings of the ext_proc filter."""
    name = "envoy.filters.http.ext_proc"
    filters = connection_manager(document)["http_filters"]
    settings: Document = next(each for each in filters if each["name"] == name)["typed_config"]
    return settings


def virtual_host(document: Document) -> Document:
    """Return the only virtual host."""
    host: Document = connection_manager(document)["route_config"]["virtual_hosts"][0]
    return host


def route(document: Document, name: str) -> Document:
    """Return the route of this name."""
    found: Document = next(each for each in virtual_host(document)["routes"] if each["name"] == name)
    return found


def cluster(document: Document, name: str) -> Document:
    """Return the cluster of this name."""
    clusters = document["static_resources"]["clusters"]
    found: Document = next(each for each in clusters if each["name"] == name)
    return found


def moved_to(document: Document, name: str, address: str) -> None:
    """Change the host:port of a cluster."""
    host, _, port = address.rpartition(":")
    endpoint = cluster(document, name)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": host, "port_value": int(port)}


def checks_often(document: Document) -> None:
    """Check the router's health every 0.1 s instead of every 2 s, to keep the test short."""
    check = cluster(document, "dualpool")["health_checks"][0]
    check |= {"interval": "0.1s", "no_traffic_interval": "0.1s"}


def waits_briefly(document: Document) -> None:
    """Let Envoy wait for the router as long as the files of the modes streamed and buffered let it."""
    ext_proc(document)["message_timeout"] = "0.5s"


def closes_soon(document: Document) -> None:
    """Let Envoy close an aborted connection after 0.05 s instead of 1 s if the client has not closed it."""
    connection_manager(document)["delayed_close_timeout"] = "0.05s"


class Envoy(ManagedProcess):
    """An Envoy that runs a given configuration unchanged."""

    def __init__(self, name: str, document: Document, folder: Path) -> None:
        config, self._admin_address = folder / "envoy.json", folder / "envoy.admin"
        config.write_text(json.dumps(document))
        super().__init__(name, _command(config, self._admin_address), folder)
        self.admin.base_url = eventually(self._find_admin, f"{self.name} opens its admin port")
        eventually(self._ready, f"{self.name} is ready")
        self.port = self._listening_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def statistic(self, name: str) -> int:
        """Return one of Envoy's own statistics."""
        response = self.admin.get("/stats", params={"filter": f"^{name}$", "format": "json"})
        return sum(int(each["value"]) for each in response.json()["stats"] if "value" in each)

    def set_runtime(self, key: str, value: int) -> None:
        """Change a runtime value at the admin port, as an operator does."""
        self.admin.post("/runtime_modify", params={key: value}).raise_for_status()

    def access_log(self, mark: str) -> list[dict[str, Any]]:
        """Return the entries of requests whose path contains `mark`."""
        lines = self.out.read_text().splitlines()
        return [json.loads(line) for line in lines if mark in line]

    def _find_admin(self) -> str:
        assert self.running, f"{self.name} did not start:\n{self.log_tail()}"
        address = self._admin_address.read_text() if self._admin_address.exists() else ""
        return f"http://{address}" if address else ""

    def _ready(self) -> bool:
        assert self.running, f"{self.name} did not start:\n{self.log_tail()}"
        return self.admin.get("/ready").status_code == httpx.codes.OK

    def _listening_port(self) -> int:
        listeners = self.admin.get("/listeners", params={"format": "json"}).json()
        return int(listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"])


class Gateway(Envoy):
    """An Envoy that runs a file of `envoy/`.

    `addresses` are host:port by cluster name; `change` edits the configuration. This Envoy waits a minute for the
    router: a machine may stall any process for longer than most files let it wait. See `waits_briefly`.
    """

    def __init__(
        self, mode: str, addresses: dict[str, str], folder: Path, change: Callable[[Document], None] | None = None
    ) -> None:
        document = _on_free_ports(load(mode), addresses)
        # The file says to do so if the router has a tenant header, and the router of the tests has one.
        ext_proc(document)["forward_rules"]["allowed_headers"]["patterns"].append({"exact": TENANT_HEADER})
        ext_proc(document)["message_timeout"] = "60s"
        if change is not None:
            change(document)
        super().__init__(f"envoy-{mode.replace('/', '-')}", document, folder)


def envoy_binary() -> str:
    """Return the path of the Envoy that is installed next to this Python."""
    return shutil.which("envoy", path=sysconfig.get_path("scripts")) or "envoy"


def _command(config: Path, admin_address: Path) -> list[str]:
    return [
        *(envoy_binary(), "-c", str(config), "--admin-address-path", str(admin_address)),
        *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
        # Write access log lines to disk soon after the request.
        *("--file-flush-interval-msec", "20"),
    ]


def _on_free_ports(document: Document, addresses: dict[str, str]) -> Document:
    document["admin"]["address"]["socket_address"]["port_value"] = 0
    document["static_resources"]["listeners"][0]["address"]["socket_address"] |= {
        "address": "127.0.0.1",
        "port_value": 0,
    }
    for name, address in addresses.items():
        moved_to(document, name, address)
    return document
