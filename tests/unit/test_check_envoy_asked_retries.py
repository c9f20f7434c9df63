"""`dualpool check envoy` on headers that a gateway adds itself, and by which requests ask Envoy for retries."""

from typing import Any, Final

import pytest

from tests.envoy.harness.gateway import connection_manager, load, route, virtual_host
from tests.traps.finding import names_in

ON: Final = "x-envoy-retry-on"
ASKS: Final = {"header": {"key": "X-Envoy-Retry-On", "value": "reset, 5xx"}}
ADDS: Final = {"request_headers_to_add": [ASKS]}
REMOVES: Final = {"request_headers_to_remove": [ON.title()]}
NOTHING: Final[dict[str, Any]] = {}
PER_FILTER: Final = "typed_per_filter_config"
EXTENSIONS: Final = "type.googleapis.com/envoy.extensions.filters.http."
TRAP: Final = {"retries-on-default-route"}


def found(
    of_route: dict[str, Any],
    of_host: dict[str, Any] = NOTHING,
    *,
    of_table: dict[str, Any] = NOTHING,
    of_cluster: dict[str, Any] | None = None,
    filters: tuple[dict[str, Any], ...] = (),
) -> set[str]:
    """Return the traps if the default route, its host, its table and its only cluster say this."""
    document = load("streamed")
    default = route(document, "long")
    del default["request_headers_to_remove"]
    if of_cluster is not None:
        weighted = {"name": default["route"].pop("cluster"), "weight": 1, **of_cluster}
        default["route"]["weighted_clusters"] = {"clusters": [weighted]}
    host, manager = virtual_host(document), connection_manager(document)
    for level, said in ((default, of_route), (host, of_host)):
        level.update(said | {PER_FILTER: level.get(PER_FILTER, {}) | said.get(PER_FILTER, {})})
    manager["route_config"] |= of_table
    manager["http_filters"][:0] = filters
    return names_in(document)


def mutating(*mutations: dict[str, Any]) -> dict[str, Any]:
    """Return a header_mutation filter."""
    config = {"@type": f"{EXTENSIONS}header_mutation.v3.HeaderMutation"}
    return {"name": "m", "typed_config": config | {"mutations": {"request_mutations": [*mutations]}}}


DOWNWARDS: Final = mutating()
DOWNWARDS["typed_config"]["most_specific_header_mutations_wins"] = True


def overriding(*mutations: dict[str, Any]) -> dict[str, Any]:
    """Return a route's or a host's settings for this filter."""
    config = {"@type": f"{EXTENSIONS}header_mutation.v3.HeaderMutationPerRoute"}
    return {PER_FILTER: {"m": config | {"mutations": {"request_mutations": [*mutations]}}}}


def lua(code: str) -> dict[str, Any]:
    """Return a Lua filter."""
    config = {"@type": f"{EXTENSIONS}lua.v3.Lua", "default_source_code": {"inline_string": code}}
    return {"name": "lua", "typed_config": config}


@pytest.mark.parametrize(
    ("levels", "traps"),
    [
        ((ADDS,), TRAP),
        ((ADDS | REMOVES,), TRAP),
        ((ADDS, REMOVES), set()),
        ((REMOVES, ADDS), TRAP),
        ((NOTHING, ADDS), TRAP),
    ],
)
def test_a_level_removes_what_the_ones_below_it_add(levels: tuple[dict[str, Any], ...], traps: set[str]) -> None:
    """The host has its say after the route; each removes before it adds."""
    assert traps == found(*levels)


@pytest.mark.parametrize(("levels", "traps"), [((ADDS, REMOVES), TRAP), ((REMOVES, ADDS), set())])
def test_the_most_specific_level_may_come_last(levels: tuple[dict[str, Any], ...], traps: set[str]) -> None:
    """As the route table says."""
    assert traps == found(*levels, of_table={"most_specific_header_mutations_wins": True})


def test_a_table_s_own_say() -> None:
    """It comes last."""
    assert TRAP == found(REMOVES, REMOVES, of_table=ADDS)
    assert set() == found(NOTHING, ADDS, of_table=REMOVES)


@pytest.mark.parametrize("table", [NOTHING, {"most_specific_header_mutations_wins": True}])
def test_a_weighted_cluster_comes_first(table: dict[str, Any]) -> None:
    """Whatever the order of the others."""
    assert TRAP == found(NOTHING, of_cluster=ADDS, of_table=table)
    assert set() == found(REMOVES, of_cluster=ADDS, of_table=table)
    assert TRAP == found(ADDS, of_cluster=REMOVES, of_table=table)


@pytest.mark.parametrize(
    ("header", "traps"),
    [
        ({"key": ON, "value": "none"}, set()),
        ({"key": ON, "value": "%REQ(x-retries)%"}, TRAP),
        ({"key": "x-envoy-retry-grpc-on", "value": "cancelled"}, TRAP),
        ({"key": "x-envoy-max-retries", "value": "5"}, set()),
    ],
)
def test_values_that_ask_for_retries(header: dict[str, str], traps: set[str]) -> None:
    """Envoy ignores conditions that it does not know."""
    assert traps == found({"request_headers_to_add": [{"header": header}]})


def test_a_value_for_those_who_ask_already() -> None:
    """Where nothing is added, only internal clients ask."""
    option = ASKS | {"append_action": "OVERWRITE_IF_EXISTS"}
    assert set() == found({"request_headers_to_add": [option]})
    assert set() == found(NOTHING, filters=(mutating({"append": option}),))


@pytest.mark.parametrize(
    ("filter_", "levels", "traps"),
    [
        (mutating({"append": ASKS}), (NOTHING,), TRAP),
        (mutating({"append": ASKS}), (REMOVES,), set()),
        (mutating({"append": ASKS}, {"remove": ON}), (NOTHING,), set()),
        (mutating({"remove": ON}, {"append": ASKS}), (NOTHING,), TRAP),
        (mutating({"append": ASKS}) | {"disabled": True}, (NOTHING,), set()),
        (mutating(), (overriding({"append": ASKS}),), TRAP),
        (mutating({"append": ASKS}), (overriding({"remove": ON}),), set()),
        (mutating(), (overriding({"remove": ON}), overriding({"append": ASKS})), TRAP),
        (mutating(), (overriding({"append": ASKS}), overriding({"remove": ON})), set()),
        (DOWNWARDS, (overriding({"append": ASKS}), overriding({"remove": ON})), TRAP),
        (DOWNWARDS, (overriding({"remove": ON}), overriding({"append": ASKS})), set()),
        (lua(f'headers:add("{ON}", "5xx")'), (NOTHING,), TRAP),
        (lua(f"headers:replace( '{ON.title()}', '5xx')"), (NOTHING,), TRAP),
        (lua(f'headers:add("x-seen", headers:get("{ON}"))'), (NOTHING,), set()),
    ],
)
def test_a_filter_that_adds_the_header(
    filter_: dict[str, Any], levels: tuple[dict[str, Any], ...], traps: set[str]
) -> None:
    """Envoy obeys it on routes that do not remove it, where the filter is on."""
    assert traps == found(*levels, filters=(filter_,))


ADDING: Final = overriding({"append": ASKS})
REMOVING: Final = overriding({"remove": ON})


@pytest.mark.parametrize(
    ("of_route", "of_cluster", "upwards", "downwards"),
    [
        (NOTHING, ADDING, TRAP, TRAP),
        (ADDING, REMOVING, TRAP, set()),
        (REMOVING, ADDING, set(), TRAP),
    ],
)
def test_a_filter_s_settings_for_a_weighted_cluster(
    of_route: dict[str, Any], of_cluster: dict[str, Any], upwards: set[str], downwards: set[str]
) -> None:
    """They come before those of the route, or after them if the filter has the levels in the opposite order."""
    assert upwards == found(of_route, of_cluster=of_cluster, filters=(mutating(),))
    assert downwards == found(of_route, of_cluster=of_cluster, filters=(DOWNWARDS,))
