"""`dualpool check envoy` on routes that share a host with others, and on conditions written in other ways."""

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.gateways.matching.paths import PathMatch
from tests.envoy.harness.gateway import Document, cluster, connection_manager, ext_proc, load, route, virtual_host
from tests.traps.finding import names_in

FILTER = "envoy.filters.http.ext_proc"
OFF = {FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}
KINDS = ("prefix", "path", "path_separated_prefix")


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


HEADER = "x-token-budget-pool"
TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"


def rest_of_the_header(document: Document) -> None:
    """Send all other values of the pool's header to the long pool, behind the short pool's route."""
    rest = deepcopy(route(document, "long")) | {"name": "rest"}
    rest["match"] = {"prefix": "/", "headers": [{"name": HEADER, "present_match": True}]}
    routes = virtual_host(document)["routes"]
    routes.insert(routes.index(route(document, "short")) + 1, rest)


def canary(document: Document, *names: str) -> None:
    """Divide the short pool's requests between clusters."""
    action = route(document, "short")["route"]
    del action["cluster"]
    action["weighted_clusters"] = {"clusters": [{"name": name, "weight": 1} for name in names]}


def templates(document: Document) -> None:
    """Serve another application by one template, before the short pool by another one."""
    for name, path in (("long", "/v1/{rest=**}"), ("short", "/v1/{rest=**}")):
        match = route(document, name)["match"]
        del match["prefix"]
        match["path_match_policy"] = {
            "name": "template",
            "typed_config": {"@type": TEMPLATE, "path_template": path},
        }
    health = deepcopy(route(document, "long")) | {"name": "health"}
    health["match"]["path_match_policy"]["typed_config"]["path_template"] = "/health/*"
    virtual_host(document)["routes"].insert(0, health)


def arriving_by_a_pattern(document: Document) -> None:
    """Let requests arrive on a route whose path cannot be compared, next to another application."""
    route(document, "short")["match"]["prefix"] = "/v1/"
    route(document, "long")["match"] = {"safe_regex": {"regex": "/v[12]/.*"}}
    web = {"name": "web", "match": {"prefix": "/"}, "route": {"cluster": "pool_long", "timeout": "0s"}}
    virtual_host(document)["routes"].append(web | {"typed_per_filter_config": OFF})


def arriving_without_the_header(document: Document) -> None:
    """Say of the default route that it is for requests without the pool's header."""
    route(document, "long")["match"]["headers"] = [{"name": HEADER, "present_match": False}]


def picker_for_the_short_pool(document: Document) -> None:
    """Call an endpoint picker after the router, on the short pool's route only; its choice is not retried."""
    filters = connection_manager(document)["http_filters"]
    settings = {
        "@type": ext_proc(document)["@type"],
        "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
        "failure_mode_allow": True,
    }
    filters.insert(len(filters) - 1, {"name": "picker", "disabled": True, "typed_config": settings})
    without_retry(document)
    route(document, "short")["typed_per_filter_config"] = {
        "picker": {"@type": f"{ext_proc(document)['@type'].rpartition('.')[0]}.ExtProcPerRoute", "overrides": {}}
    }


@pytest.mark.parametrize(
    "change",
    [
        rest_of_the_header,
        lambda d: canary(d, "short_then_long", "pool_long"),
        lambda d: canary(d, "pool_long", "short_then_long"),
        templates,
        arriving_by_a_pattern,
        arriving_without_the_header,
        picker_for_the_short_pool,
    ],
)
def test_sound_routes_raise_no_alarm(change: Callable[[Document], None]) -> None:
    """Routes that do what they should are not reported, however they are written."""
    document = load("streamed")
    change(document)
    assert set() == names_in(document)


def test_a_bypass_for_another_path_is_none() -> None:
    """A route for very large bodies helps only on the paths of the route that would refuse them."""
    document = load("buffered")
    under(document, "/v1/")
    bypass = route(document, "very_large_body")["match"]
    bypass["path"] = "/other"
    del bypass["prefix"]
    assert {"buffer-below-body-cap"} == names_in(document)


def matches(path: PathMatch, text: str) -> bool:
    """Return whether Envoy matches a path."""
    end = {"prefix": ".*", "path": "", "path_separated_prefix": "(/.*)?"}
    pattern = path.text if path.kind == "safe_regex" else re.escape(path.text) + end[path.kind]
    return re.fullmatch(pattern, text, re.IGNORECASE if path.any_case else re.NOFLAG) is not None


LITERALS = st.builds(
    PathMatch, st.sampled_from(KINDS), st.text("/aA", max_size=3).map(lambda text: f"/{text}"), st.booleans()
)
REGEXES = st.builds(
    lambda parts: PathMatch("safe_regex", "".join(parts)),
    st.lists(
        st.sampled_from(["/", "a", "A", ".*", "(a|/)", "|", "[aA]", "(/|", ")", "\\.*", "$", "(", "\\("]),
        max_size=5,
    ),
).filter(lambda path: can_be_compiled(path.text))


def can_be_compiled(pattern: str) -> bool:
    """Return whether Python takes a pattern."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


@given(LITERALS | REGEXES, LITERALS, st.lists(st.text("/aA.", max_size=4)))
def test_what_a_path_covers_it_matches(covering: PathMatch, covered: PathMatch, tails: list[str]) -> None:
    """Whatever matches a covered condition matches the covering one; a path condition is covered if it matches."""
    text = covered.text
    found = [each for each in (text, *(text + tail for tail in tails)) if matches(covered, each)]
    found += [each.swapcase() for each in found if covered.any_case]
    if covering.covers(covered):
        assert all(matches(covering, each) for each in found)
    if any(matches(covering, each) for each in found):
        assert covering.may_overlap(covered)
        assert covered.may_overlap(covering)
    if covered.kind == "path" and not covered.any_case:
        assert covering.covers(covered) is matches(covering, text)


@pytest.mark.parametrize("regex", [".*", "/.*"])
def test_a_regular_expression_for_every_path_covers_all(regex: str) -> None:
    """Expressions are compared with paths and prefixes; of two expressions it is known only if they are equal."""
    anything, some = PathMatch("safe_regex", regex), PathMatch("safe_regex", "/v1/.*")
    assert anything.covers(some)
    assert some.covers(some)
    assert some.covers(PathMatch("prefix", "/v1/x"))
    assert not some.covers(PathMatch("safe_regex", "/v1/x.*"))
    assert not PathMatch("prefix", "/v1").covers(some)
