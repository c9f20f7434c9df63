"""Conversion of Envoy's virtual hosts and routes into the model, with each route's overrides of the filters."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import RoutingPriority
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher, RouteAction, VirtualHost
from envoy.config.route.v3.route_components_pb2 import Route as EnvoyRoute
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from extproc.gateways.envoy.asked_retries import asks_retries_place
from extproc.gateways.envoy.overrides import (
    Surroundings,
    filters_on,
    holding,
    processor_of_all,
    tuned,
)
from extproc.gateways.envoy.retries import retry_of
from extproc.gateways.envoy.whole_bodies import authorization_cap, cap_before
from extproc.gateways.matching.headers import HeaderMatch
from extproc.gateways.matching.paths import LITERAL, PathMatch
from extproc.gateways.model import Host, Limits, Retry, Route
from extproc.gateways.parsing.parts import Part, milliseconds
from extproc.gateways.parsing.sources import Place

__all__ = ["hosts_of"]

# Envoy's default.
ROUTE_TIMEOUT_MS: Final = 15_000.0
# A string matcher's pattern as a regular expression for the complete value.
_AS_REGEX: Final = {"exact": "{}", "prefix": "{}.*", "suffix": ".*{}", "contains": ".*{}.*"}
_OF_PERCENT: Final = {0: 1.0, 1: 100.0, 2: 10_000.0}  # envoy.type.v3.FractionalPercent's denominators


def hosts_of(part: Part[RouteConfiguration], around: Surroundings) -> tuple[Host, ...]:
    """Return the virtual hosts of a route table but those whose routes are in a matcher, which is not followed."""
    hosts = (host for host in part.items("virtual_hosts") if not host.message.HasField("matcher"))
    return tuple(_host(host, part, around) for host in hosts)


def _host(part: Part[VirtualHost], table: Part[RouteConfiguration], around: Surroundings) -> Host:
    routes = tuple(_route(route, part, table, around) for route in part.items("routes"))
    return Host(part.message.name, part.place, routes)


def _route(
    part: Part[EnvoyRoute], host: Part[VirtualHost], table: Part[RouteConfiguration], around: Surroundings
) -> Route:
    message, match = part.message, part.field("match")
    clusters = tuple(_clusters(message))
    # The most specific level comes last and wins.
    levels = [table, host, part]
    held = holding(levels, around)
    on = filters_on(levels, around)
    cap = cap_before(levels, around)
    limit, limit_place = (cap.limit_bytes, cap.place) if cap else _body_limit((part, host), around.limits)
    return Route(
        # Few files name their routes: without a name, the place in the list tells them apart.
        name=message.name or part.place.path.rpartition(".")[2],
        place=part.place,
        path=_path(match.message),
        headers=tuple(_header(each.message) for each in match.items("headers")),
        other_conditions=_other_conditions(match.message),
        percent=_percent(match.message),
        clusters=clusters,
        timeout_ms=_timeout_ms(part.field("route"), around.limits) if clusters else 0.0,
        retry=_retry(part, host) if clusters else None,
        processor=processor_of_all(levels, around),
        waits_for_whole_body=cap is not None,
        authorization_cap=authorization_cap(levels, around),
        filters_on=frozenset(each.name for each in on),
        tuned=tuned(part, around.filters),
        waiting=held.waiting,
        returning=held.returning,
        body_limit_bytes=limit,
        body_limit_place=limit_place,
        retry_limit_bytes=_retry_limit((part, host)),
        redirects_place=_redirects_place(part.field("route")),
        removed=frozenset(name.lower() for level in levels for name in level.message.request_headers_to_remove),
        asks_retries_place=asks_retries_place(levels, on),
        is_high=message.route.priority == RoutingPriority.HIGH,
        upgrades=around.upgrades.through_filter(part.field("route")),
    )


def _timeout_ms(action: Part[RouteAction], limits: Limits) -> float:
    """Return the shortest timeout that applies to a response: the route's, or the connection manager's."""
    said = (
        milliseconds(action, "timeout", ROUTE_TIMEOUT_MS),
        milliseconds(action, "idle_timeout", limits.idle_ms),
        milliseconds(action.field("max_stream_duration"), "max_stream_duration", limits.duration_ms),
    )
    return min((each for each in said if each > 0), default=0.0)


def _redirects_place(action: Part[RouteAction]) -> Place | None:
    name = "internal_redirect_policy"
    return action.place_of(name) if action.message.HasField(name) else None


def _clusters(message: EnvoyRoute) -> Iterator[str]:
    """Yield the names of a route's clusters; one that each request chooses is unknown, and named by how."""
    if not message.HasField("route"):
        return
    action = message.route
    if action.cluster:
        yield action.cluster
    elif action.cluster_header:
        yield f"(by the header {action.cluster_header})"
    elif action.cluster_specifier_plugin or action.HasField("inline_cluster_specifier_plugin"):
        yield f"(by the plugin {action.cluster_specifier_plugin or 'of a route'})"
    for each in action.weighted_clusters.clusters:
        if each.weight.value > 0:  # with 0 it gets nothing, as before a canary's start
            yield each.name or f"(by the header {each.cluster_header})"


def _path(match: Any) -> PathMatch:  # noqa: ANN401  (a RouteMatch; the messages have no types)
    kind: str = match.WhichOneof("path_specifier") or ""
    value = match.safe_regex.regex if kind == "safe_regex" else getattr(match, kind, "")
    any_case = kind in LITERAL and match.HasField("case_sensitive") and not match.case_sensitive.value
    return PathMatch(kind, str(value), any_case)  # a message, such as a template's, by its text


def _other_conditions(match: Any) -> frozenset[str]:  # noqa: ANN401  (a RouteMatch)
    """Return each condition on something other than path and headers, as text."""
    many = [*match.query_parameters, *match.dynamic_metadata, *match.filter_state]
    single = [getattr(match, name) for name in ("grpc", "tls_context") if match.HasField(name)]
    return frozenset(f"{each.DESCRIPTOR.full_name} {each}" for each in many + single)


def _header(message: HeaderMatcher) -> HeaderMatch:
    kind = message.WhichOneof("header_match_specifier")
    found = HeaderMatch(
        message.name.lower(),
        inverted=message.invert_match,
        empty_if_absent=message.treat_missing_header_as_empty,
    )
    if kind == "exact_match":
        return replace(found, exact=message.exact_match)
    if kind == "safe_regex_match":
        return replace(found, regex=message.safe_regex_match.regex)
    if kind == "range_match":
        return replace(found, numbers=(message.range_match.start, message.range_match.end))
    if kind == "present_match":
        return replace(found, present=message.present_match)
    if kind == "string_match":
        return _of_string(found, message.string_match)
    old = (kind or "").removesuffix("_match")  # prefix_match and the like, which string_match replaces
    return replace(found, regex=_as_regex(old, getattr(message, kind))) if old in _AS_REGEX else found


def _of_string(found: HeaderMatch, matcher: StringMatcher) -> HeaderMatch:
    """Return a condition with a string matcher; one that cannot be evaluated counts as present."""
    kind = matcher.WhichOneof("match_pattern")
    if kind == "exact" and not matcher.ignore_case:
        return replace(found, exact=matcher.exact)
    if kind == "safe_regex":
        return replace(found, regex=matcher.safe_regex.regex)
    if kind not in _AS_REGEX:
        return found
    pattern = _as_regex(kind, getattr(matcher, kind))
    return replace(found, regex=("(?i)" if matcher.ignore_case else "") + pattern)


def _as_regex(kind: str, text: str) -> str:
    return _AS_REGEX[kind].format(re.escape(text))


def _percent(match: Any) -> float:  # noqa: ANN401  (a RouteMatch)
    if not match.HasField("runtime_fraction"):
        return 100.0
    value = match.runtime_fraction.default_value
    return float(value.numerator / _OF_PERCENT.get(value.denominator, 1.0))


def _retry(part: Part[EnvoyRoute], host: Part[VirtualHost]) -> Retry | None:
    action = part.field("route")
    if action.message.HasField("retry_policy"):
        return retry_of(action.field("retry_policy"))
    return retry_of(host.field("retry_policy")) if host.message.HasField("retry_policy") else None


def _body_limit(parts: Iterable[Part[Any]], limits: Limits) -> tuple[int, Any]:
    for part in parts if limits.routes_have_own else ():
        if part.message.HasField("request_body_buffer_limit"):
            said = part.message.request_body_buffer_limit.value
            if said > limits.buffer_bytes:  # it raises the listener's limit, and never lowers it
                return said, part.place_of("request_body_buffer_limit")
            break
    return limits.buffer_bytes, limits.buffer_place


def _retry_limit(parts: Iterable[Part[Any]]) -> int | None:
    names = ("request_body_buffer_limit", "per_request_buffer_limit_bytes")
    said = (
        int(getattr(part.message, name).value) for part in parts for name in names if part.message.HasField(name)
    )
    return next(said, None)
