"""`dualpool check envoy` on filters after the router's that do on some routes what by themselves they do not."""

from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, connection_manager, load, route, virtual_host
from tests.traps.bitten_chain import KINDS, insert
from tests.traps.finding import names_in
from tests.unit.test_check_envoy_versions import dump_of

TRAP = "waiting-filter-after"
SERVICE = {"envoy_grpc": {"cluster_name": "other"}}
NOTHING = {"request_header_mode": "SKIP", "response_header_mode": "SKIP"}
DUPLEX = {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"}
CALL = {"inline_string": "function envoy_on_request(h) h:httpCall('authz', {}, '', 100) end"}
READ = {"inline_string": "function envoy_on_request(h) h:body() end"}
DELAY = {"delay": {"fixed_delay": "1s", "percentage": {"numerator": 100}}}
PROCESSOR, LUA, FAULT = "ext_proc.v3.ExternalProcessor", "lua.v3.Lua", "fault.v3.HTTPFault"


def of_route(kind: str, **settings: Any) -> dict[str, Any]:
    """Return what a route says of the filter called "other"."""
    return {"other": {"@type": f"{KINDS}.filters.http.{kind}", **settings}}


def modes(**of_processor: Any) -> dict[str, Any]:
    """Return a route's modes for an external processor."""
    return of_route("ext_proc.v3.ExtProcPerRoute", overrides={"processing_mode": of_processor})


def document(kind: str, said: dict[str, Any], **settings: Any) -> Document:
    """Return our file in full duplex with another filter after the router's, and what a route says of it."""
    made = load("full-duplex")
    insert(made, "other", kind, before=False, **settings)
    route(made, "long")["typed_per_filter_config"] = said
    return made


@pytest.mark.parametrize("version", [(1, 37), (1, 38), None])
def test_a_picker_whose_modes_are_those_of_a_route(version: tuple[int, int] | None) -> None:
    """Istio's filter asks nobody by itself; a route of an InferencePool sets full duplex, and its picker."""
    made = document(PROCESSOR, modes(**DUPLEX), grpc_service=SERVICE, processing_mode=NOTHING)
    assert (TRAP in names_in(dump_of(made, version))) == (version == (1, 37))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (PROCESSOR, {"grpc_service": SERVICE, "processing_mode": NOTHING}, modes(request_header_mode="SEND")),
        (PROCESSOR, {"grpc_service": SERVICE, "processing_mode": DUPLEX}, modes(request_body_mode="BUFFERED")),
        (LUA, {}, of_route("lua.v3.LuaPerRoute", source_code=CALL)),
        (FAULT, {}, of_route(FAULT, **DELAY)),
    ],
)
def test_filters_that_wait_on_a_route(kind: str, settings: dict[str, Any], said: dict[str, Any]) -> None:
    """They cut bodies there, as they would if they always waited; off the route, none of them waits."""
    assert TRAP in names_in(document(kind, said, **settings))
    assert TRAP not in names_in(document(kind, {}, **settings))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (PROCESSOR, {"grpc_service": SERVICE}, modes(**DUPLEX)),
        (PROCESSOR, {"grpc_service": SERVICE}, modes(**NOTHING)),
        (LUA, {"default_source_code": CALL}, of_route("lua.v3.LuaPerRoute", source_code=READ)),
        (LUA, {"default_source_code": CALL}, of_route("lua.v3.LuaPerRoute", disabled=True)),
        (FAULT, DELAY, of_route(FAULT, abort={"http_status": 503, "percentage": {"numerator": 1}})),
    ],
)
def test_filters_that_no_route_lets_wait(kind: str, settings: dict[str, Any], said: dict[str, Any]) -> None:
    """What all routes of the router's say is what counts; where one of them says nothing, the filter waits."""
    made = document(kind, said, **settings)
    assert TRAP in names_in(made)
    for each in virtual_host(made)["routes"]:
        each["typed_per_filter_config"] = each.get("typed_per_filter_config", {}) | said
    assert TRAP not in names_in(made)


@pytest.mark.parametrize("said", [modes(), modes(**DUPLEX)])
def test_an_observer_whose_modes_a_route_sets(said: dict[str, Any]) -> None:
    """Envoy waits for no reply of it on any route."""
    made = document(PROCESSOR, said, grpc_service=SERVICE, observability_mode=True)
    assert TRAP not in names_in(made)


def test_a_filter_that_waits_for_one_of_a_route_s_clusters() -> None:
    """A route to several clusters may say for each of them what a filter does."""
    made = document(PROCESSOR, {}, grpc_service=SERVICE, processing_mode=NOTHING)
    long = route(made, "long")["route"]
    name = long.pop("cluster")
    long["weighted_clusters"] = {"clusters": [{"name": name, "weight": 1}, {"name": name, "weight": 1}]}
    assert TRAP not in names_in(made)
    long["weighted_clusters"]["clusters"][1]["typed_per_filter_config"] = modes(request_header_mode="SEND")
    assert TRAP in names_in(made)


def test_a_route_on_which_the_router_is_not_asked() -> None:
    """What waits only there cuts no body."""
    made = document(PROCESSOR, {}, grpc_service=SERVICE, processing_mode=NOTHING)
    route(made, "upgrade")["typed_per_filter_config"] |= modes(request_header_mode="SEND")
    assert TRAP not in names_in(made)


@pytest.mark.parametrize("off", [True, False])
@pytest.mark.parametrize("of_processor", [DUPLEX, {}])
def test_routes_that_are_not_known(of_processor: dict[str, Any], *, off: bool) -> None:
    """Without them a filter does what its own settings say, unless it is off."""
    made = document(PROCESSOR, {}, grpc_service=SERVICE, processing_mode=of_processor)
    manager = connection_manager(made)
    manager["rds"] = {"route_config_name": "elsewhere"}
    del manager["route_config"]
    next(each for each in manager["http_filters"] if each["name"] == "other")["disabled"] = off
    assert (TRAP in names_in(dump_of(made, (1, 37)))) == (not off)


def test_a_picker_that_no_route_of_the_router_s_enables() -> None:
    """It loses no body in an older Envoy."""
    made = document(PROCESSOR, {}, grpc_service=SERVICE, processing_mode=DUPLEX)
    held = connection_manager(made)["http_filters"]
    next(each for each in held if each["name"] == "other")["disabled"] = True
    assert TRAP not in names_in(dump_of(made, (1, 37)))
    route(made, "long")["typed_per_filter_config"] = modes(**DUPLEX)
    assert TRAP in names_in(dump_of(made, (1, 37)))
