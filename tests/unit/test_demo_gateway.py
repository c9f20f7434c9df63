import socket
from typing import Any, cast

import pytest

from extproc.demo.gateway import EXT_PROC, FILE, _ready_listeners, configuration
from extproc.documents import read_document

CLUSTERS = {"pool_short": "127.0.0.1:1001", "pool_long": "127.0.0.1:1002", "dualpool": "127.0.0.1:1003"}


@pytest.fixture
def document() -> dict[str, Any]:
    """Return the project's own configuration with the demo's addresses."""
    made: dict[str, Any] = configuration(cast(dict[str, Any], read_document(FILE.read_text("utf-8"))), CLUSTERS)
    return made


def filters_of(listener: dict[str, Any]) -> list[str]:
    """Return the names of a listener's HTTP filters."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return [each["name"] for each in manager["http_filters"]]


def test_nothing_listens_on_a_fixed_port(document: dict[str, Any]) -> None:
    """Admin and listeners use free ports of the loopback interface."""
    places = [document["admin"], *document["static_resources"]["listeners"]]
    addresses = [place["address"]["socket_address"] for place in places]
    assert addresses == [{"address": "127.0.0.1", "port_value": 0}] * 3


def test_clusters_get_their_addresses(document: dict[str, Any]) -> None:
    """Pools and router have the addresses at which the demo started them."""
    found = {}
    for cluster in document["static_resources"]["clusters"]:
        if "load_assignment" in cluster:
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            address = endpoint["address"]["socket_address"]
            found[cluster["name"]] = f"{address['address']}:{address['port_value']}"
    assert found == CLUSTERS


def test_the_second_listener_differs_only_by_the_router(document: dict[str, Any]) -> None:
    """The listener without the router has all other filters."""
    routed, plain = map(filters_of, document["static_resources"]["listeners"])
    assert EXT_PROC in routed
    assert plain == [name for name in routed if name != EXT_PROC]


def test_an_envoy_that_hangs_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """An admin port that accepts connections but never answers does not hold the start up beyond its time."""
    monkeypatch.setattr("extproc.demo.gateway.ANSWERS_WITHIN_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert _ready_listeners(f"http://127.0.0.1:{silent.getsockname()[1]}") is None
