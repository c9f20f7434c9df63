"""`dualpool check envoy` on conditions on the pool's header; tests/envoy asks a real Envoy about the same ones."""

from typing import Any

import pytest

from tests.envoy.harness.gateway import connection_manager, load, route
from tests.traps.finding import names_in
from tests.traps.header_conditions import ABSENT, SHORT, arriving_on, reached_by
from tests.unit.test_check_envoy_out_of_sight import routes_dump
from tests.unit.test_check_envoy_versions import dump_of


@pytest.mark.parametrize(("condition", "matches"), ABSENT.values(), ids=ABSENT)
def test_a_default_route_that_needs_the_header(condition: dict[str, Any], matches: bool) -> None:  # noqa: FBT001
    """Requests arrive without it: unless the condition matches those, they are a 404."""
    document = load("streamed")
    arriving_on(document, condition)
    assert (set() if matches else {"default-route-not-largest"}) == names_in(document)


@pytest.mark.parametrize(("condition", "matches"), SHORT.values(), ids=SHORT)
def test_conditions_of_another_age(condition: dict[str, Any], matches: bool) -> None:  # noqa: FBT001
    """The fields that string_match has replaced are read, too: Envoy still accepts them."""
    document = load("streamed")
    reached_by(document, condition)
    assert (set() if matches else {"pool-without-route"}) == names_in(document)


def test_a_pool_s_route_for_other_methods() -> None:
    """The router places POST requests only."""
    document = load("streamed")
    headers = route(document, "short")["match"]["headers"]
    headers.append({"name": ":method", "string_match": {"exact": "POST"}})
    assert set() == names_in(document)
    headers[-1]["string_match"]["exact"] = "GET"
    assert {"pool-without-route"} == names_in(document)


@pytest.mark.parametrize("source", ["manager", "dump"])
def test_headers_for_internal_clients_only(source: str) -> None:
    """Envoy removes them at the edge, wherever the route table that names them comes from."""
    document = load("streamed")
    manager = connection_manager(document)
    del manager["early_header_mutation_extensions"]
    manager["use_remote_address"] = True
    names = [f"x-token-budget-{name}" for name in ("pool", "estimate", "reason")]
    table = manager["route_config"] | {"name": "table", "internal_only_headers": names}
    if source == "manager":
        manager["route_config"] = table
    else:
        del manager["route_config"]
        manager["rds"] = {"route_config_name": "table", "config_source": {"ads": {}}}
        document = dump_of(document, None)
        document["configs"].append(routes_dump(table))
    assert set() == names_in(document)
    # The same table, without one of them.
    del names[1]
    assert {"spoofable-header"} == names_in(document)
