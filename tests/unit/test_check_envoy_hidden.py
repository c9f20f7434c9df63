"""`dualpool check envoy` on a pool's route behind one that takes its requests, however that one says so."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from extproc.gateways.inputs import read_gateways
from extproc.gateways.model import Gateway, Route
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.envoy.harness.gateway import Document, connection_manager, load, route, virtual_host
from tests.traps.finding import names_in

HEADER = "x-token-budget-pool"
BETA = {"name": "x-beta", "string_match": {"exact": "1"}}
MODEL = {"name": "model", "string_match": {"exact": "m"}}


def behind(before: dict[str, Any], **of_the_pool: object) -> Callable[[Document], None]:
    """Return a change that puts a route to the long pool before the short pool's; both get these conditions."""

    def change(document: Document) -> None:
        short, first = route(document, "short"), deepcopy(route(document, "long"))
        short["match"]["prefix"] = "/v1/"
        for key, value in of_the_pool.items():
            if key == "path":
                short["match"].pop("prefix")
            if key == "headers":
                assert isinstance(value, list)
                short["match"][key] = short["match"][key] + value
            else:
                short["match"][key] = value
        first["name"], first["match"] = "first", before
        virtual_host(document)["routes"].insert(0, first)

    return change


def regex(text: str) -> dict[str, Any]:
    """Return a condition on the path."""
    return {"safe_regex": {"regex": text}}


@pytest.mark.parametrize(
    "change",
    [
        behind(regex("/v1/.*")),
        behind(regex("^/v[12]/.*$")),
        behind(regex("/v1/chat/(completions|x)"), path="/v1/chat/completions"),
        behind({"prefix": "/V1", "case_sensitive": False}),
        behind({"prefix": "/V1/", "case_sensitive": False}, case_sensitive=False),
        behind({"prefix": "/v1/", "headers": [BETA]}, headers=[BETA]),
        behind({"prefix": "/", "headers": [{"name": "x-beta", "present_match": True}]}, headers=[BETA]),
        behind({"prefix": "/", "query_parameters": [MODEL]}, query_parameters=[MODEL]),
        behind({"prefix": "/", "grpc": {}}, grpc={}, headers=[BETA]),
    ],
)
def test_a_route_that_takes_them_all_hides_the_pools(change: Callable[[Document], None]) -> None:
    """A pool's route is not reached if one before it takes whatever it matches, also under the same conditions."""
    document = load("streamed")
    change(document)
    assert "pool-without-route" in names_in(document)


@pytest.mark.parametrize(
    "change",
    [
        behind(regex("/v1/chat/.*")),
        behind(regex("/v1/")),
        behind(regex(r"/v1/\.*")),
        behind(regex("/v1/|/x.*")),
        behind(regex("/v1/.*x")),
        behind(regex("/v1/.*("), path="/v1/chat/completions"),
        behind(regex("/v1/.*"), case_sensitive=False),
        behind({"prefix": "/v1/", "headers": [BETA]}),
        behind({"prefix": "/v1/", "headers": [BETA | {"invert_match": True}]}, headers=[BETA]),
        behind({"prefix": "/v1/", "query_parameters": [MODEL]}),
        behind({"prefix": "/v1/", "query_parameters": [MODEL]}, grpc={}),
        behind({"prefix": "/v1/", "headers": [{"name": HEADER, "present_match": False}]}),
    ],
)
def test_a_route_that_leaves_some_hides_nothing(change: Callable[[Document], None]) -> None:
    """A route that may leave requests of the pool's route is no reason for an alarm."""
    document = load("streamed")
    change(document)
    assert "pool-without-route" not in names_in(document)


def test_thousands_of_routes_are_not_all_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work grows with the number of a host's routes, not with its square."""
    compared, takes_all_of = [0], Route.takes_all_of

    def counted(*arguments: Any) -> bool:
        compared[0] += 1
        return takes_all_of(*arguments)

    monkeypatch.setattr(Route, "takes_all_of", counted)
    document, others = load("streamed"), 300
    for number in range(others):
        other = deepcopy(route(document, "long")) | {"name": f"app {number}"}
        other["match"] = {"prefix": f"/app{number}/", "headers": [BETA]}
        virtual_host(document)["routes"].insert(0, other)
    assert set() == names_in(document)
    assert compared[0] < 20 * others


@pytest.mark.parametrize("mode", ["streamed", "buffered"])
def test_hosts_with_pools_of_their_own_are_not_compared_with_each_other(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work grows with the number of hosts, as in a gateway with one for each of a thousand teams."""
    looked, first_servers = [0], Gateway.first_servers

    def counted(*arguments: Any) -> Any:
        looked[0] += 1
        return first_servers(*arguments)

    monkeypatch.setattr(Gateway, "first_servers", counted)
    document, others = load(mode), 100
    host = virtual_host(document)
    hosts = [deepcopy(host) | {"name": f"h{number}", "domains": [f"h{number}"]} for number in range(others)]
    connection_manager(document)["route_config"]["virtual_hosts"] += hosts
    assert set() == names_in(document)
    assert looked[0] < 20 * others


def test_a_route_is_found_among_thousands_by_itself() -> None:
    """The search for a route's place compares no contents: routes equal only themselves."""
    document = load("buffered")
    found = read_gateways(read(json.dumps(document), "file.yaml"), Router()).gateways
    again = read_gateways(read(json.dumps(document), "file.yaml"), Router()).gateways
    routes, others = (each[0].hosts[0].routes for each in (found, again))
    assert 0 == routes.index(routes[0])
    assert routes[0] != others[0]
