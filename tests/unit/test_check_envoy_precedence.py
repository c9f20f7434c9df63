"""The order in which Istio and Envoy Gateway try the matches of HTTPRoutes."""

import json
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

import pytest

from extproc.gateways.kubernetes.envoy_gateway.routes import routes_of
from extproc.gateways.kubernetes.envoy_gateway.rules import Rules
from extproc.gateways.kubernetes.istio.routes import hosts_of
from extproc.gateways.kubernetes.manifests import Manifests
from extproc.gateways.parsing.sources import read

EXACT: Final = {"path": {"type": "Exact", "value": "/v1/a"}}
LONGER: Final = {"path": {"type": "PathPrefix", "value": "/v1/abc"}}
REGEX: Final = {"path": {"type": "RegularExpression", "value": "/v1"}}
PREFIX: Final[dict[str, Any]] = {"path": {"type": "PathPrefix", "value": "/v1"}}
HEADER: Final = {"name": "a", "value": "a"}
PATTERN: Final = {"name": "b", "value": "b", "type": "RegularExpression"}
QUERY: Final = {"name": "q", "value": "1"}
QUERY_PATTERN: Final = {**QUERY, "type": "RegularExpression"}
METHOD: Final = {"method": "POST"}
SLASH: Final[dict[str, Any]] = {"path": {"type": "PathPrefix", "value": "/v1/"}}


def of_istio(manifests: Manifests) -> list[Any]:
    """Return the matches as Istio orders them."""
    return [route["match"] for host in hosts_of(manifests) for route in host["routes"]]


def of_envoy_gateway(manifests: Manifests) -> list[Any]:
    """Return the matches as Envoy Gateway orders them."""
    routes = (each for rule in Rules(manifests, []).all for each in routes_of(rule))
    return [route["match"] for _, route in sorted(routes, key=itemgetter(0))]


def matches_in_order(ordered: Callable[[Manifests], list[Any]], given: list[dict[str, Any]]) -> list[Any]:
    """Return the matches of a route with one rule for each of these."""
    rules = [{"matches": [each], "backendRefs": [{"name": "a", "port": 80}]} for each in given]
    route = {"apiVersion": "v1", "kind": "HTTPRoute", "metadata": {"name": "a"}, "spec": {"rules": rules}}
    return ordered(Manifests(tuple(read(json.dumps(route), "file.yaml"))))


@pytest.mark.parametrize(
    ("ordered", "in_order"),
    [
        (
            of_istio,
            [
                *(EXACT, LONGER, PREFIX | METHOD, PREFIX | {"headers": [HEADER, PATTERN]}),
                *(PREFIX | {"headers": [HEADER], "queryParams": [QUERY]}, PREFIX | {"headers": [HEADER]}),
                *(PREFIX | {"queryParams": [QUERY]}, SLASH, REGEX),
            ],
        ),
        (
            of_envoy_gateway,
            [
                *(EXACT, REGEX, LONGER, SLASH, PREFIX | METHOD | {"headers": [PATTERN]}),
                *(PREFIX | {"headers": [HEADER], "queryParams": [QUERY]}, PREFIX | {"headers": [HEADER]}),
                *(PREFIX | {"headers": [PATTERN], "queryParams": [QUERY]}, PREFIX | {"headers": [PATTERN]}),
                *(PREFIX | {"queryParams": [QUERY]}, PREFIX | {"queryParams": [QUERY_PATTERN]}, PREFIX),
            ],
        ),
    ],
)
def test_the_order_of_matches(ordered: Callable[[Manifests], list[Any]], in_order: list[dict[str, Any]]) -> None:
    """Kind and length of the path first, then methods, headers and parameters, wherever they are in the file."""
    alone = [one for each in in_order for one in matches_in_order(ordered, [each])]
    assert alone == matches_in_order(ordered, in_order[::-1])


@pytest.mark.parametrize("ordered", [of_istio, of_envoy_gateway])
@pytest.mark.parametrize(
    ("path", "match"),
    [
        ({"type": "PathPrefix", "value": "/"}, {"prefix": "/"}),
        ({"value": "/v1"}, {"path_separated_prefix": "/v1"}),
        ({"type": "PathPrefix", "value": "/v1/"}, {"path_separated_prefix": "/v1"}),
        ({"type": "Exact", "value": "/v1/"}, {"path": "/v1/"}),
        ({}, {"prefix": "/"}),
    ],
)
def test_a_match_of_a_path(
    ordered: Callable[[Manifests], list[Any]], path: dict[str, str], match: dict[str, str]
) -> None:
    """A prefix is one of whole segments, and a slash at its end is ignored; that of all paths is Envoy's own."""
    (found,) = matches_in_order(ordered, [{"path": path}])
    assert match == {name: found[name] for name in found if name not in ("headers", "query_parameters")}
