"""`dualpool check envoy` on EnvoyFilters that insert, replace and remove HTTP filters, and patch route tables."""

from typing import Final

import pytest

from extproc.core.errors import ConfigurationError
from extproc.gateways.findings import find_traps
from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT

KINDS: Final = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER: Final = "envoy.filters.http.router"
MORE: Final = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: more, namespace: istio-system}
spec:
  configPatches:
    - applyTo: %s
      match: {context: GATEWAY, %s}
      patch: {operation: %s, value: %s}
"""
CHAIN: Final = "listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager%s}}}"
ANYWHERE: Final = CHAIN % ""
LIMIT: Final = f'{{name: limit, typed_config: {{"@type": {KINDS}rbac.v3.RBAC}}}}'
COMPRESSOR: Final = f'{{name: gzip, typed_config: {{"@type": {KINDS}compressor.v3.Compressor}}}}'


def at(name: str) -> str:
    """Return a match of one filter."""
    return CHAIN % f", subFilter: {{name: {name}}}"


def checked(*more: str, old: str = "", new: str = "") -> tuple[set[str], tuple[str, ...]]:
    """Return the names of the traps, and what is not checked, in our manifests with a change, and more objects."""
    paths = [path for pattern in DEPLOYED["istio"] for path in sorted(ROOT.glob(pattern))]
    texts = [path.read_text("utf-8").replace(old or "\0", new) for path in paths]
    found = read_gateways((each for text in [*texts, *more] for each in read(text, "file.yaml")), Router())
    return {each.trap.name for each in find_traps(found.gateways, Router(), ()).found}, found.unchecked


def patch(operation: str, match: str, value: str, kind: str = "HTTP_FILTER") -> str:
    """Return an EnvoyFilter of the same gateway with one patch."""
    return MORE % (kind, match, operation, value)


@pytest.mark.parametrize(
    ("operation", "match", "traps"),
    [
        ("INSERT_FIRST", ANYWHERE, set()),
        ("INSERT_FIRST", at(ROUTER), set()),
        ("INSERT_BEFORE", ANYWHERE, set()),
        ("INSERT_BEFORE", at("dualpool"), set()),
        ("INSERT_BEFORE", at(ROUTER), {"auth-after"}),
        ("INSERT_AFTER", at("dualpool"), {"auth-after"}),
        ("INSERT_AFTER", at(ROUTER), {"auth-after", "after-the-end"}),
        ("INSERT_AFTER", ANYWHERE, {"auth-after", "after-the-end"}),
        ("ADD", ANYWHERE, {"auth-after", "after-the-end"}),
        ("ADD", at("dualpool"), {"auth-after", "after-the-end"}),
        ("REPLACE", at("istio.alpn"), {"auth-after"}),
        ("REPLACE", ANYWHERE, set()),
        ("REMOVE", ANYWHERE, set()),
    ],
)
def test_where_a_filter_comes(operation: str, match: str, traps: set[str]) -> None:
    """Without the name of a filter it comes at an end or nowhere; filters that are named are taken to exist."""
    assert (traps, ()) == checked(patch(operation, match, LIMIT))


def test_a_filter_of_ours_at_the_end() -> None:
    """Envoy refuses it, so that the router is not asked."""
    assert ({"after-the-end"}, ()) == checked(old="operation: INSERT_BEFORE", new="operation: ADD")


def test_a_filter_that_is_merged_but_not_there() -> None:
    """A merge brings no filter: Istio has an endpoint picker's only for routes to InferencePools."""
    asking = f'{{typed_config: {{"@type": {KINDS}ext_proc.v3.ExternalProcessor, failure_mode_allow: true}}}}'
    assert (set(), ()) == checked(patch("MERGE", at("envoy.filters.http.ext_proc"), asking))


def test_a_filter_that_is_replaced() -> None:
    """Only the new one is left: the first of its name, where it was."""
    compressing, other = patch("INSERT_BEFORE", at(ROUTER), COMPRESSOR), patch("REPLACE", at("gzip"), LIMIT)
    assert ({"compressor-after"}, ()) == checked(compressing)
    assert ({"auth-after"}, ()) == checked(compressing, other)
    assert ({"compressor-after"}, ()) == checked(patch("REPLACE", at("gzip"), COMPRESSOR))


def test_a_filter_that_is_removed() -> None:
    """All of its name are, but not those that a later patch inserts."""
    inserting, removing = patch("INSERT_BEFORE", at(ROUTER), COMPRESSOR), patch("REMOVE", at("gzip"), "{}")
    assert (set(), ()) == checked(inserting, inserting, removing)
    assert ({"compressor-after"}, ()) == checked(removing, inserting)
    with pytest.raises(ConfigurationError, match="no ext_proc filter"):
        checked(patch("REMOVE", at("dualpool"), "{}"))


@pytest.mark.parametrize(("name", "traps"), [("istio.alpn", set()), (ROUTER, {"after-the-end"})])
def test_the_router_s_filter_in_place_of_another(name: str, traps: set[str]) -> None:
    """It may be one that Istio generates, but not the one that sends requests on."""
    old = f"subFilter: {{name: {ROUTER}}}\n      patch:\n        operation: INSERT_BEFORE"
    new = old.replace("INSERT_BEFORE", "REPLACE").replace(ROUTER, name)
    assert (traps, ()) == checked(old=old, new=new)


def test_negative_priorities() -> None:
    """An EnvoyFilter with one comes before those without a priority, whatever their order in the input."""
    inserting, removing = patch("INSERT_BEFORE", at(ROUTER), COMPRESSOR), patch("REMOVE", at("gzip"), "{}")
    early = removing.replace("spec:", "spec:\n  priority: -10")
    assert (set(), ()) == checked(inserting, removing)
    assert ({"compressor-after"}, ()) == checked(inserting, early)


ENABLED: Final = f'{{dualpool: {{"@type": {KINDS}ext_proc.v3.ExtProcPerRoute, disabled: true}}}}'


@pytest.mark.parametrize(
    ("value", "trap"),
    [
        ("{request_headers_to_add: [{header: {key: x-envoy-retry-on, value: 5xx}}]}", "retries-on-default-route"),
        (f"{{typed_per_filter_config: {ENABLED}}}", None),
        ("{max_direct_response_body_size_bytes: 4096}", None),
    ],
)
def test_patches_of_the_route_table(value: str, trap: str | None) -> None:
    """What they add to the table counts for all of its routes, unless these say something else."""
    found = checked(patch("MERGE", "routeConfiguration: {portNumber: 8443}", value, "ROUTE_CONFIGURATION"))
    assert (({trap} if trap else set()), ()) == found
