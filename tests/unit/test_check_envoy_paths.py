"""`dualpool check envoy` on routes that share a host with others, and on conditions written in other ways."""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.gateways.path_match import PathMatch
from tests.envoy.harness.gateway import Document, cluster, connection_manager, ext_proc, load, route, virtual_host
from tests.traps.finding import names_in

FILTER = "envoy.filters.http.ext_proc"
OFF = {FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}
KINDS = ("prefix", "path", "path_separated_prefix")
PATHS = st.text("/av", min_size=1, max_size=4)


def under(document: Document, prefix: str) -> None:
    """Serve the pools under a prefix only."""
    for name in ("short", "long"):
        route(document, name)["match"]["prefix"] = prefix


def moved_behind(document: Document, name: str) -> None:
    """Make a route the last one."""
    routes = virtual_host(document)["routes"]
    moved = route(document, name)
    routes.remove(moved)
    routes.append(moved)


@pytest.mark.parametrize("prefix", ["/v1/", "/"])
def test_a_route_behind_another_one_for_its_path_is_not_reached(prefix: str) -> None:
    """A route without conditions takes everything under its path, also if that is not everything."""
    document = load("streamed")
    under(document, prefix)
    moved_behind(document, "short")
    assert {"pool-without-route"} == names_in(document)


def test_a_route_behind_one_for_another_path_is_reached() -> None:
    """A default route for other paths leaves a pool's route as it is."""
    document = load("streamed")
    under(document, "/v1/")
    other = deepcopy(route(document, "long")) | {"name": "other", "match": {"prefix": "/v2/"}}
    virtual_host(document)["routes"].insert(0, other)
    assert set() == names_in(document)


def test_other_applications_on_the_host_need_no_filter() -> None:
    """A catch-all route to something else, behind the pools' routes, may have the router's filter off."""
    document = load("streamed")
    under(document, "/v1/")
    web = {"name": "web", "match": {"prefix": "/"}, "route": {"cluster": "pool_long", "timeout": "0s"}}
    virtual_host(document)["routes"].append(web | {"typed_per_filter_config": OFF})
    assert set() == names_in(document)


def test_a_filter_that_is_off_where_the_pools_requests_arrive() -> None:
    """It does not help that the filter is on for another application's path."""
    document = load("streamed")
    under(document, "/v1/")
    route(document, "long")["typed_per_filter_config"] = OFF
    other = deepcopy(route(document, "long")) | {"name": "other", "match": {"prefix": "/v2/"}}
    del other["typed_per_filter_config"]
    virtual_host(document)["routes"].append(other)
    assert {"pool-without-route"} == names_in(document)


def test_a_bypass_behind_the_default_route_is_none() -> None:
    """A route for very large bodies that is never reached does not keep them from a 413."""
    document = load("buffered")
    moved_behind(document, "very_large_body")
    assert {"buffer-below-body-cap"} == names_in(document)


def without_retry(document: Document) -> None:
    """Do not repair what the short pool refuses."""
    del route(document, "short")["route"]["retry_policy"]


def guarded(document: Document, *, disabled: bool) -> None:
    """Call another ext_proc server before the router, for some routes or for all."""
    without_retry(document)
    clusters = document["static_resources"]["clusters"]
    clusters.append(deepcopy(cluster(document, "dualpool")) | {"name": "guardrails"})
    clusters[-1]["load_assignment"]["cluster_name"] = "guardrails"
    settings = {
        "@type": ext_proc(document)["@type"],
        "grpc_service": {"envoy_grpc": {"cluster_name": "guardrails"}},
        "failure_mode_allow": True,
    }
    guard: Document = {"name": "guardrails", "typed_config": settings} | ({"disabled": True} if disabled else {})
    connection_manager(document)["http_filters"].insert(0, guard)


def matched_by(document: Document, **matcher: Any) -> None:
    """Match the header of the short pool in another way."""
    without_retry(document)
    (condition,) = route(document, "short")["match"]["headers"]
    condition["string_match"] = matcher


def second_cluster(document: Document) -> None:
    """Send half of the short pool's requests to a cluster without a fallback."""
    action = route(document, "short")["route"]
    halves = [{"name": name, "weight": 1} for name in (action.pop("cluster"), "pool_short")]
    action["weighted_clusters"] = {"clusters": halves}


@pytest.mark.parametrize(
    "change",
    [
        lambda d: guarded(d, disabled=True),
        lambda d: matched_by(d, prefix="sh"),
        lambda d: matched_by(d, suffix="ort"),
        lambda d: matched_by(d, contains="hor"),
        lambda d: matched_by(d, exact="SHORT", ignore_case=True),
        lambda d: matched_by(d, safe_regex={"regex": "s.*"}),
    ],
)
def test_a_missing_repair_is_found_however_the_route_is_written(change: Callable[[Document], None]) -> None:
    """Neither a filter that is off nor another way to match the pool hides it."""
    document = load("streamed")
    change(document)
    assert {"repair-missing"} == names_in(document)


@pytest.mark.parametrize("change", [lambda d: guarded(d, disabled=False), second_cluster])
def test_a_missing_repair_is_found_among_other_traps(change: Callable[[Document], None]) -> None:
    """An ext_proc filter before the router's is no endpoint picker; each of several clusters needs a fallback."""
    document = load("streamed")
    change(document)
    assert "repair-missing" in names_in(document)


def matches(path: PathMatch, text: str) -> bool:
    """Return whether Envoy matches a path."""
    pattern = re.escape(path.text)
    end = {"prefix": ".*", "path": "", "path_separated_prefix": "(/.*)?"}[path.kind]
    return re.fullmatch(pattern + end, text) is not None


@given(st.sampled_from(KINDS), PATHS, st.sampled_from(KINDS), PATHS, st.lists(st.text("/av", max_size=4)))
def test_what_a_path_covers_it_matches(one: str, text: str, other: str, its: str, tails: list[str]) -> None:
    """Whatever matches a covered condition matches the covering one; a path condition is covered if it matches."""
    covering, covered = PathMatch(one, text), PathMatch(other, f"/{its}")
    found = [each for each in (its, *(its + tail for tail in tails)) if matches(covered, f"/{each}")]
    if covering.covers(covered):
        assert all(matches(covering, f"/{each}") for each in found)
    if other == "path":
        assert covering.covers(covered) is matches(covering, f"/{its}")


@pytest.mark.parametrize("regex", [".*", "/.*"])
def test_a_regular_expression_for_every_path_covers_all(regex: str) -> None:
    """Only expressions that match every path cover others; nothing else is known about one but itself."""
    anything, some = PathMatch("safe_regex", regex), PathMatch("safe_regex", "/v1/.*")
    assert anything.covers(some)
    assert some.covers(some)
    assert not some.covers(PathMatch("prefix", "/v1/x"))
    assert not PathMatch("prefix", "/v1").covers(some)
