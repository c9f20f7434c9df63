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
        ("INSERT_BEFORE", at("envoy.filters.http.cors"), set()),
        ("INSERT_AFTER", at("istio.alpn"), set()),
        ("REPLACE", at("istio.alpn"), set()),
        ("REPLACE", at("other"), {"auth-after"}),
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


@pytest.mark.parametrize(("name", "asked"), [("gzip", False), ("envoy.filters.http.cors", True)])
def test_a_filter_that_a_later_patch_inserts(name: str, asked: bool) -> None:  # noqa: FBT001
    """Istio inserts nothing beside it, unless it is one that Istio may have itself."""
    later = patch("INSERT_BEFORE", at(ROUTER), COMPRESSOR.replace("gzip", name))
    old = f"subFilter: {{name: {ROUTER}}}"
    if asked:
        assert ({"compressor-after"}, ()) == checked(later, old=old, new=old.replace(ROUTER, name))
    else:
        with pytest.raises(ConfigurationError, match="no ext_proc filter"):
            checked(later, old=old, new=old.replace(ROUTER, name))


def test_negative_priorities() -> None:
    """An EnvoyFilter with one comes before those without a priority, whatever their order in the input."""
    inserting, removing = patch("INSERT_BEFORE", at(ROUTER), COMPRESSOR), patch("REMOVE", at("gzip"), "{}")
    early = removing.replace("spec:", "spec:\n  priority: -10")
    assert (set(), ()) == checked(inserting, removing)
    assert ({"compressor-after"}, ()) == checked(inserting, early)


MANAGER: Final = "envoy.filters.network.http_connection_manager"


@pytest.mark.parametrize("name", ["", "envoy.http_connection_manager", "envoy.filters.network.tcp_proxy"])
def test_filters_of_another_network_filter(name: str) -> None:
    """Istio refuses a patch without its name, and applies none where it is not the connection manager's."""
    with pytest.raises(ConfigurationError, match="no ext_proc filter") as error:
        checked(old=f"name: {MANAGER}\n", new=f"name: {name}\n")
    assert any("INSERT_BEFORE HTTP_FILTER) is not applied: Istio" in each for each in error.value.sentences)


@pytest.mark.parametrize(
    ("name", "said"), [("", 1), ("envoy.http_connection_manager", 1), ("envoy.filters.network.tcp_proxy", 0)]
)
def test_patches_of_another_network_filter(name: str, said: int) -> None:
    """They do not change the connection manager; those that mean another filter are not said."""
    found, unchecked = checked(old=f"filter: {{name: {MANAGER}}}", new=f"filter: {{name: {name}}}")
    assert ({"spoofable-header", "head-limits"} <= found, said) == (True, len(unchecked))


def test_a_merge_without_a_filter() -> None:
    """Istio merges it into all of them, which nobody wants."""
    found, unchecked = checked(patch("MERGE", ANYWHERE, COMPRESSOR))
    assert (set(), 1) == (found, len(unchecked))


OLD: Final = "creationTimestamp: '2026-01-02T03:04:05Z', "
ROOT_NAMESPACE: Final = ", namespace: istio-system"


@pytest.mark.parametrize(
    ("inserting", "removing", "removed"),
    [
        (f"name: x{ROOT_NAMESPACE}", f"name: y{ROOT_NAMESPACE}", True),
        (f"name: y{ROOT_NAMESPACE}", f"name: x{ROOT_NAMESPACE}", False),
        (f"name: x{ROOT_NAMESPACE}", f"{OLD}name: y{ROOT_NAMESPACE}", False),
        (f"{OLD}name: y{ROOT_NAMESPACE}", f"name: x{ROOT_NAMESPACE}", True),
        (f"name: y{ROOT_NAMESPACE}", "name: x", True),
        ("name: x", f"name: y{ROOT_NAMESPACE}", False),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_order_of_filters(inserting: str, removing: str, removed: bool, first: bool) -> None:  # noqa: FBT001
    """Those of the root namespace come first, then the oldest, then the first by name, wherever in the input."""
    both = [
        text.replace("name: more, namespace: istio-system", metadata)
        for text, metadata in (
            (patch("INSERT_BEFORE", at(ROUTER), COMPRESSOR), inserting),
            (patch("REMOVE", at("gzip"), "{}"), removing),
        )
    ]
    ours = "metadata:\n  name: dualpool\n"
    oldest = f"{ours}  creationTimestamp: '2025-01-02T03:04:05Z'\n"
    found, _ = checked(*(both if first else both[::-1]), old=ours, new=oldest)
    assert removed == ("compressor-after" not in found)


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
