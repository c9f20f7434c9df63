"""`dualpool check envoy` on routes: which retries apply to them, and which routes the router is called for."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.envoy.harness.gateway import Document, cluster, connection_manager, ext_proc, load, route, virtual_host
from tests.traps.bitten import BITTEN, bitten
from tests.traps.finding import found_in, names_in

RETRIES = {"retry_on": "5xx"}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def retries_of_the_host(document: Document) -> None:
    """Set retries on the virtual host, for all routes at once; the short route has its own."""
    virtual_host(document)["retry_policy"] = RETRIES


def retries_of_the_cluster(document: Document) -> None:
    """Set retries on the cluster that the requests go to."""
    kind = f"type.googleapis.com/{HTTP_OPTIONS}"
    explicit: Document = {"http_protocol_options": {}}
    options = {"@type": kind, "explicit_http_config": explicit, "retry_policy": RETRIES}
    cluster(document, "pool_long")["typed_extension_protocol_options"] = {HTTP_OPTIONS: options}


def retries_of_none(document: Document) -> None:
    """Set a policy with 0 retries, which is still a policy."""
    route(document, "long")["route"]["retry_policy"] = RETRIES | {"num_retries": 0}


def small_bodies_that_are_not_buffered(document: Document) -> None:
    """Retry small bodies that may not have ended."""
    del route(document, "small_body")["typed_per_filter_config"]


def buffered_by_the_filter_and_streamed_by_the_route(document: Document) -> None:
    """Override the filter's mode on one route, and set retries there."""
    ext_proc(document)["processing_mode"]["request_body_mode"] = "BUFFERED"
    del ext_proc(document)["send_body_without_waiting_for_header_response"]
    virtual_host(document)["request_body_buffer_limit"] = 32 << 20
    places = {"max_requests": 1024, "max_pending_requests": 1024}
    cluster(document, "dualpool")["circuit_breakers"]["thresholds"] = [places]
    runtime = route(document, "very_large_body")["match"]["runtime_fraction"]["default_value"]
    runtime["numerator"] = 100
    mode = ext_proc(document)["processing_mode"] | {"request_body_mode": "STREAMED"}
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
    overrides = {"@type": kind, "overrides": {"processing_mode": mode}}
    long = route(document, "long")
    long["typed_per_filter_config"] = {"envoy.filters.http.ext_proc": overrides}
    long["route"]["retry_policy"] = RETRIES
    ext_proc(document)["send_body_without_waiting_for_header_response"] = True


@pytest.mark.parametrize(
    "change",
    [
        retries_of_the_host,
        retries_of_the_cluster,
        retries_of_none,
        small_bodies_that_are_not_buffered,
        buffered_by_the_filter_and_streamed_by_the_route,
    ],
)
def test_retries_are_found_wherever_they_are_set(change: Callable[[Document], None]) -> None:
    """Host, cluster and route can each set retries; whether they do harm depends on the mode of each route."""
    document = load("streamed")
    change(document)
    assert {"retries-on-default-route"} == names_in(document)


@pytest.mark.parametrize("trap", ["retries-on-default-route", "redirects-on-default-route", "retries-by-clients"])
@pytest.mark.parametrize(("mode", "found"), [("buffered", False), ("full-duplex", True)])
def test_retries_are_a_trap_for_bodies_in_pieces(mode: str, trap: str, found: bool) -> None:  # noqa: FBT001
    """Where a body is held whole they duplicate nothing; in full duplex they do, as in streamed mode."""
    document = load(mode)
    BITTEN[trap](document)
    assert ({trap} if found else set()) == names_in(document)
    assert all("in mode FULL_DUPLEX_STREAMED" in each.what for each in found_in(json.dumps(document)))


def removed_by_the_host(document: Document, names: list[str]) -> None:
    """Remove headers on the virtual host, for all routes at once."""
    virtual_host(document)["request_headers_to_remove"] = names


def removed_by_the_table(document: Document, names: list[str]) -> None:
    """Remove headers on the route table, for all hosts at once."""
    connection_manager(document)["route_config"]["request_headers_to_remove"] = names


def removed_early(document: Document, names: list[str]) -> None:
    """Remove headers before a route is chosen."""
    (early,) = connection_manager(document)["early_header_mutation_extensions"]
    early["typed_config"]["mutations"] += [{"remove": name} for name in names]


@pytest.mark.parametrize("change", [removed_by_the_host, removed_by_the_table, removed_early])
def test_both_retry_headers_have_to_be_removed_at_any_level(
    change: Callable[[Document, list[str]], None],
) -> None:
    """The route, its host, its table or an early mutation can remove them; one that is left over is a trap."""
    document = bitten("retries-by-clients")
    change(document, ["X-Envoy-Retry-On"])
    assert ["x-envoy-retry-grpc-on"] == [each.what.split()[0] for each in found_in(json.dumps(document))]
    change(document, ["x-envoy-retry-on", "x-envoy-retry-grpc-on"])
    assert set() == names_in(document)


def test_an_unknown_retry_condition_is_ignored() -> None:
    """An invalid condition that is merged over Istio's default to disable it is not a trap."""
    document = load("streamed")
    route(document, "long")["route"]["retry_policy"] = {"retry_on": "none"}
    assert set() == names_in(document)


def test_a_filter_that_is_off_everywhere_is_reported() -> None:
    """If no route enables the filter, the router is never called, and no other trap would be reported."""
    document = load("streamed")
    del virtual_host(document)["typed_per_filter_config"]
    assert {"pool-without-route"} == names_in(document)


@pytest.mark.parametrize(("change", "found"), [("whole bodies", False), ("responses only", False), ("", True)])
@pytest.mark.parametrize("trap", ["decompressor-before", "decompressor-after"])
def test_decompressors_are_traps_for_bodies_in_pieces(trap: str, change: str, found: bool) -> None:  # noqa: FBT001
    """A decompressor that only sees whole bodies, or only responses, does no harm."""
    document = load("buffered" if change == "whole bodies" else "streamed")
    BITTEN[trap](document)
    if change == "responses only":
        filters = connection_manager(document)["http_filters"]
        settings = next(each for each in filters if each["name"] == "decompressor")["typed_config"]
        settings["request_direction_config"] = {"common_config": {"enabled": {"default_value": False}}}
    assert ({trap} if found else set()) == names_in(document)


def test_one_limit_is_one_finding() -> None:
    """A limit that applies to several routes is reported once, for the route that requests arrive on."""
    (finding,) = found_in(json.dumps(bitten("buffer-below-body-cap")))
    assert '"long"' in finding.what


def test_routes_without_the_filter_are_not_checked() -> None:
    """Another host on the same gateway, with the filter off, may be configured in any way."""
    document = load("streamed")
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    action = {"cluster": "pool_long", "timeout": "1s", "retry_policy": RETRIES}
    other = {
        "name": "other",
        "domains": ["other.example"],
        "typed_per_filter_config": {"envoy.filters.http.ext_proc": off},
        "routes": [{"match": {"prefix": "/"}, "route": action}],
    }
    connection_manager(document)["route_config"]["virtual_hosts"].append(other)
    assert set() == names_in(document)


def behind_a_catch_all_route(document: Document, percent: Document | None) -> None:
    """Put a catch-all route to the long pool before all others; it takes a share of the requests (None: all)."""
    match = {"prefix": "/"} | ({} if percent is None else {"runtime_fraction": {"default_value": percent}})
    canary = deepcopy(route(document, "long")) | {"name": "canary", "match": match}
    virtual_host(document)["routes"].insert(0, canary)


@pytest.mark.parametrize(
    "percent",
    [
        {"numerator": 1},
        {"numerator": 99},
        {"numerator": 9_999, "denominator": "TEN_THOUSAND"},
        {"numerator": 100, "denominator": "TEN_THOUSAND"},
        {"numerator": 999_999, "denominator": "MILLION"},
    ],
)
def test_routes_behind_a_canary_are_reachable(percent: Document) -> None:
    """A catch-all route that takes less than 100 % of the requests leaves the rest to the routes behind it."""
    document = load("streamed")
    behind_a_catch_all_route(document, percent)
    assert set() == names_in(document)


@pytest.mark.parametrize(
    "percent",
    [
        None,
        {"numerator": 100},
        {"numerator": 101},
        {"numerator": 10_000, "denominator": "TEN_THOUSAND"},
        {"numerator": 1_000_000, "denominator": "MILLION"},
    ],
)
def test_routes_behind_a_catch_all_route_are_unreachable(percent: Document | None) -> None:
    """A catch-all route that takes all requests hides the routes behind it, however the 100 % are written."""
    document = load("streamed")
    behind_a_catch_all_route(document, percent)
    assert {"pool-without-route"} == names_in(document)


def test_a_share_of_the_requests_is_no_default_route() -> None:
    """If the only catch-all route takes 50 % of the requests, there is no route for the others."""
    document = load("streamed")
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    virtual_host(document)["routes"] = [route(document, "short"), route(document, "long")]
    long = route(document, "long")
    long["typed_per_filter_config"] = {"envoy.filters.http.ext_proc": off}
    long["match"]["runtime_fraction"] = {"default_value": {"numerator": 50}}
    assert {"default-route-not-largest"} == names_in(document)


def short_action(document: Document) -> Document:
    """Return the action of the short pool's route, with a retry policy that is not shared with other routes."""
    action: Document = route(document, "short")["route"]
    action["retry_policy"] = deepcopy(action["retry_policy"])
    return action


def of_retry(document: Document, **fields: Any) -> None:
    """Change fields of the retry policy of the short pool's route."""
    short_action(document)["retry_policy"].update(fields)


def weighted(document: Document, *clusters: Document) -> None:
    """Distribute the long route's requests among several clusters."""
    action = route(document, "long")["route"]
    del action["cluster"]
    action["weighted_clusters"] = {"clusters": list(clusters)}


def off_for_a_cluster(document: Document) -> None:
    """Disable the router's filter for the cluster that the route's requests go to."""
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
    off = {"envoy.filters.http.ext_proc": {"@type": kind, "disabled": True}}
    weighted(document, {"name": "pool_long", "weight": 1, "typed_per_filter_config": off})


def late_retry(document: Document) -> None:
    """Retry on the same pool once before going to another one."""
    short_action(document)["retry_policy"]["retry_priority"]["typed_config"]["update_frequency"] = 2


def retry_budget(document: Document) -> None:
    """Limit retries by the number of requests in flight."""
    budget = {"retry_budget": {"min_retry_concurrency": 1}}
    cluster(document, "short_then_long")["circuit_breakers"]["thresholds"] = [{"max_retries": 1024} | budget]


def exchanges_of_a_cluster(document: Document) -> None:
    """Limit exchanges with the long pool to one second."""
    common: Document = {"max_stream_duration": "1s"}
    explicit: Document = {"http_protocol_options": {}}
    kind = f"type.googleapis.com/{HTTP_OPTIONS}"
    options = {"@type": kind, "explicit_http_config": explicit, "common_http_protocol_options": common}
    cluster(document, "pool_long")["typed_extension_protocol_options"] = {HTTP_OPTIONS: options}


@pytest.mark.parametrize(
    ("trap", "change"),
    [
        ("repair-missing", lambda d: of_retry(d, num_retries=0)),
        ("repair-missing", lambda d: of_retry(d, retriable_request_headers=[{"name": "x"}])),
        ("repair-missing", lambda d: of_retry(d, retry_on="retriable-status-codes", retriable_status_codes=[400])),
        ("repair-same-pool", late_retry),
        ("repair-limit", retry_budget),
        ("repair-body-limit", lambda d: route(d, "short").update(per_request_buffer_limit_bytes=64)),
        ("response-cut", lambda d: of_retry(d, per_try_timeout="1s")),
        ("response-cut", lambda d: of_retry(d, per_try_idle_timeout="1s")),
        ("response-cut", lambda d: short_action(d).update(max_stream_duration={"max_stream_duration": "1s"})),
        ("response-cut", lambda d: short_action(d).update(idle_timeout="1s")),
        ("response-cut", lambda d: connection_manager(d).update(stream_idle_timeout="1s")),
        (
            "response-cut",
            lambda d: connection_manager(d)["common_http_protocol_options"].update(max_stream_duration="1s"),
        ),
        ("response-cut", exchanges_of_a_cluster),
        (
            "pool-without-route",
            lambda d: route(d, "short")["match"].update(runtime_fraction={"default_value": {"numerator": 0}}),
        ),
        ("pool-without-route", off_for_a_cluster),
        (
            "default-route-not-largest",
            lambda d: weighted(d, {"name": "pool_long", "weight": 1}, {"name": "pool_short", "weight": 1}),
        ),
        (
            "headers-refused",
            lambda d: ext_proc(d).update(mutation_rules={"disallow_expression": {"regex": "x-.*"}}),
        ),
    ],
)
def test_a_trap_is_found_in_other_fields(trap: str, change: Callable[[Document], None]) -> None:
    """Every setting with the effect of a trap is reported as that trap."""
    document = load("streamed")
    change(document)
    assert {trap} == names_in(document)


def test_rules_that_let_the_router_s_headers_pass() -> None:
    """Rules for header mutations are not a trap if they allow the router's three headers."""
    document = load("streamed")
    allowed = {"disallow_all": True, "allow_expression": {"regex": "x-token-budget-.*"}}
    ext_proc(document)["mutation_rules"] = allowed
    assert set() == names_in(document)


def test_routes_without_a_name_are_told_apart() -> None:
    """Few files name their routes: one without a name is called by its place in the list."""
    document = load("streamed")
    for each in virtual_host(document)["routes"]:
        each.pop("name")
        each.get("route", {}).update(timeout="1s")
    found = found_in(json.dumps(document))
    names = [each.what.split('"')[1] for each in found if each.trap.name == "response-cut"]
    assert ["routes[2]", "routes[3]", "routes[4]"] == names
