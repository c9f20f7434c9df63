"""`dualpool check envoy` on upgrades: where the router's filter holds the endless body of one, and where not."""

import json
from copy import deepcopy
from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, connection_manager, load, route, virtual_host
from tests.traps.finding import found_in, names_in

WEBSOCKET: Document = {"upgrade_type": "websocket"}
OFF: Document = WEBSOCKET | {"enabled": False}
TRAP = {"upgrade-hangs"}
UPGRADE: Document = {"name": "upgrade", "present_match": True}


def unguarded() -> Document:
    """Return the buffered file without its route for upgrades."""
    document = load("buffered")
    virtual_host(document)["routes"].remove(route(document, "upgrade"))
    return document


@pytest.mark.parametrize(
    ("of_all", "of_the_route", "found"),
    [
        ([WEBSOCKET], [], True),
        ([], [WEBSOCKET], True),
        ([OFF], [WEBSOCKET], True),
        ([OFF], [{"upgrade_type": "WebSocket"}], True),
        ([], [], False),
        ([OFF], [], False),
        ([], [OFF], False),
        ([WEBSOCKET], [OFF], False),
        ([{"upgrade_type": "CONNECT"}], [], False),
    ],
)
def test_the_route_s_choice_of_upgrades_wins(
    of_all: list[Document],
    of_the_route: list[Document],
    found: bool,  # noqa: FBT001
) -> None:
    """Upgrades are allowed by the connection manager, by the route, or by neither; either can also forbid them."""
    document = unguarded()
    connection_manager(document)["upgrade_configs"] = of_all
    route(document, "long")["route"]["upgrade_configs"] = of_the_route
    assert (TRAP if found else set()) == names_in(document)


@pytest.mark.parametrize("with_ours", [False, True])
def test_a_filter_chain_for_upgrades_alone(with_ours: bool) -> None:  # noqa: FBT001
    """Upgrades that have their own filters, without the router's, never reach it, wherever they are allowed."""
    document = unguarded()
    manager = connection_manager(document)
    filters: list[Any] = deepcopy(manager["http_filters"])
    own = filters if with_ours else filters[-1:]
    manager["upgrade_configs"] = [WEBSOCKET | {"filters": own}]
    route(document, "long")["route"]["upgrade_configs"] = [WEBSOCKET]
    assert (TRAP if with_ours else set()) == names_in(document)


@pytest.mark.parametrize(("guarded", "found"), [("websocket", TRAP), ("websocket|spdy/3.1", set())])
def test_each_upgrade_has_to_bypass_the_filter(guarded: str, found: set[str]) -> None:
    """A route around the filter for one protocol does not help requests that ask for another one."""
    document = load("buffered")
    connection_manager(document)["upgrade_configs"] = [WEBSOCKET, {"upgrade_type": "spdy/3.1"}]
    (condition,) = route(document, "upgrade")["match"]["headers"]
    del condition["present_match"]
    condition["string_match"] = {"safe_regex": {"regex": guarded}}
    assert found == names_in(document)


def test_a_route_for_tunnels_is_none_that_requests_arrive_on() -> None:
    """Only CONNECT takes it, so neither its upgrade nor its limit for bodies matters to the router."""
    document = load("buffered")
    connection_manager(document)["upgrade_configs"] = [{"upgrade_type": "CONNECT"}]
    tunnel = {"upgrade_type": "CONNECT", "connect_config": {}}
    action = {"cluster": "pool_long", "timeout": "0s", "upgrade_configs": [tunnel]}
    virtual_host(document)["routes"].insert(0, {"name": "t", "match": {"connect_matcher": {}}, "route": action})
    assert set() == names_in(document)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"prefix": "/chat"}, TRAP),
        ({"runtime_fraction": {"default_value": {"numerator": 0}}}, TRAP),
        ({"prefix": "/v1/chat/"}, TRAP),
        ({"headers": [UPGRADE, {"name": ":method", "string_match": {"exact": "GET"}}]}, TRAP),
        ({"query_parameters": [{"name": "socket", "present_match": True}]}, TRAP),
        ({"prefix": "/v1"}, set()),
        ({"headers": [UPGRADE, {"name": ":method", "string_match": {"exact": "POST"}}]}, set()),
    ],
)
def test_a_route_around_the_filter_that_the_upgrades_do_not_take(change: Document, found: set[str]) -> None:
    """One for some of the paths, or for other requests, leaves upgrades of the API with the router's filter."""
    document = load("buffered")
    connection_manager(document)["upgrade_configs"] = [WEBSOCKET]
    route(document, "long")["match"] = {"prefix": "/v1/"}
    around = route(document, "upgrade")
    around["match"] |= change
    assert found == names_in(document)


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ({"path": "/socket"}, set()),
        ({"path": "/v1/audio/transcriptions"}, set()),
        ({"path": "/team/v1/messages"}, TRAP),
        ({"prefix": "/team/"}, TRAP),
        ({"path_separated_prefix": "/v1/chat"}, TRAP),
        ({"safe_regex": {"regex": "/v1/.*"}}, TRAP),
        ({"safe_regex": {"regex": "/team[0-9]/v1/.*"}}, TRAP),
    ],
)
def test_the_router_holds_no_upgrade_to_paths_that_it_does_not_read(match: Document, found: set[str]) -> None:
    """It lets them pass at their headers; of a prefix or an expression that is known for the APIs' paths."""
    document = unguarded()
    connection_manager(document)["upgrade_configs"] = [WEBSOCKET]
    route(document, "long")["match"] = match
    assert found == names_in(document) & TRAP


def test_a_large_body_that_the_router_does_not_read() -> None:
    """Envoy refuses it all the same: a route around the filter has to take it, too."""
    document = load("buffered")
    route(document, "very_large_body")["match"] |= {"safe_regex": {"regex": "/v1/(chat/)?completions"}}
    del route(document, "very_large_body")["match"]["prefix"]
    route(document, "long")["match"] = {"path": "/v1/audio/transcriptions"}
    trap = "buffer-below-body-cap"
    (finding,) = (each for each in found_in(json.dumps(document)) if each.trap.name == trap)
    assert finding.what.endswith("as those of /v1/audio/transcriptions")
