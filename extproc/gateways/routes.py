"""Conversion of Envoy's virtual hosts and routes into the model, with each route's overrides of the filters."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from envoy.config.route.v3.route_components_pb2 import FilterConfig, HeaderMatcher, RouteAction, VirtualHost
from envoy.config.route.v3.route_components_pb2 import Route as EnvoyRoute
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.buffer.v3.buffer_pb2 import BufferPerRoute
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthzPerRoute
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExtProcPerRoute
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from extproc.gateways.header_match import HeaderMatch
from extproc.gateways.model import Filter, Host, Kind, Limits, Processor, Retry, Route
from extproc.gateways.parts import Part, milliseconds
from extproc.gateways.path_match import LITERAL, PathMatch
from extproc.gateways.processors import overridden
from extproc.gateways.retries import retry_of
from extproc.gateways.sources import Place
from extproc.gateways.upgrades import Upgrades

__all__ = ["Surroundings", "hosts_of"]

# Envoy's default.
ROUTE_TIMEOUT_MS: Final = 15_000.0
# Messages by which a route disables such a filter.
_PER_ROUTE: Final[dict[Kind, Any]] = {
    Kind.AUTH: ExtAuthzPerRoute,
    Kind.BUFFER: BufferPerRoute,
    Kind.PROCESSOR: ExtProcPerRoute,
}
# A string matcher's pattern as a regular expression for the complete value.
_AS_REGEX: Final = {"exact": "{}", "prefix": "{}.*", "suffix": ".*{}", "contains": ".*{}.*"}
_OF_PERCENT: Final = {0: 1.0, 1: 100.0, 2: 10_000.0}  # envoy.type.v3.FractionalPercent's denominators


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The context of a route: the filter chain, the router's filter in it, the listener's limits and upgrades."""

    filters: tuple[Filter, ...]
    processor: Processor
    limits: Limits
    upgrades: Upgrades


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
    limit, limit_place = _body_limit((part, host), around.limits)
    return Route(
        name=message.name,
        place=part.place,
        path=_path(match.message),
        headers=tuple(_header(each.message) for each in match.items("headers")),
        other_conditions=_other_conditions(match.message),
        percent=_percent(match.message),
        clusters=clusters,
        timeout_ms=_timeout_ms(part.field("route"), around.limits) if clusters else 0.0,
        retry=_retry(part, host) if clusters else None,
        processor=_processor_of_all(levels, around),
        waits_for_whole_body=_waits(levels, around),
        filters_on=frozenset(each.name for each in around.filters if _is_on(each, levels)),
        body_limit_bytes=limit,
        body_limit_place=limit_place,
        retry_limit_bytes=_retry_limit((part, host)),
        redirects_place=_redirects_place(part.field("route")),
        removed=frozenset(name.lower() for level in levels for name in level.message.request_headers_to_remove),
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
    if not message.HasField("route"):
        return
    action = message.route
    if action.cluster:
        yield action.cluster
    for each in action.weighted_clusters.clusters:
        yield each.name


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
    found = HeaderMatch(message.name.lower(), inverted=message.invert_match)
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
    return found


def _of_string(found: HeaderMatch, matcher: StringMatcher) -> HeaderMatch:
    """Return a condition with a string matcher; one that cannot be evaluated counts as present."""
    kind = matcher.WhichOneof("match_pattern")
    if kind == "exact" and not matcher.ignore_case:
        return replace(found, exact=matcher.exact)
    if kind == "safe_regex":
        return replace(found, regex=matcher.safe_regex.regex)
    if kind not in _AS_REGEX:
        return found
    pattern = _AS_REGEX[kind].format(re.escape(getattr(matcher, kind)))
    return replace(found, regex=("(?i)" if matcher.ignore_case else "") + pattern)


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
            return part.message.request_body_buffer_limit.value, part.place_of("request_body_buffer_limit")
    return limits.buffer_bytes, limits.buffer_place


def _retry_limit(parts: Iterable[Part[Any]]) -> int | None:
    names = ("request_body_buffer_limit", "per_request_buffer_limit_bytes")
    said = (
        int(getattr(part.message, name).value) for part in parts for name in names if part.message.HasField(name)
    )
    return next(said, None)


def _said(levels: Iterable[Part[Any]], name: str) -> Iterator[tuple[bool, Part[Any] | None]]:
    """Yield each level's override of a filter: whether it is off, and its settings."""
    for level in levels:
        for key, value in level.entries("typed_per_filter_config"):
            if key != name:
                continue
            wrapped = value.unpacked(FilterConfig)
            if wrapped is None:
                yield False, value
            elif wrapped.message.disabled:
                yield True, None
            else:
                yield False, wrapped.field("config") if wrapped.message.HasField("config") else None


def _processor_of_all(levels: list[Part[Any]], around: Surroundings) -> Processor | None:
    """Return the router's filter on one route, None if it is off for any of the route's weighted clusters."""
    weighted = levels[-1].field("route").field("weighted_clusters").items("clusters")
    found = [_processor([*levels, each], around) for each in weighted] or [_processor(levels, around)]
    return found[0] if all(found) else None


def _processor(levels: list[Part[Any]], around: Surroundings) -> Processor | None:
    """Return the router's filter on one route, None if it is off there."""
    processor = around.processor
    on = not next(each.disabled for each in around.filters if each.name == processor.name)
    for off, settings in _said(levels, processor.name):
        on = not off
        per_route = settings.unpacked(ExtProcPerRoute) if settings else None
        if per_route is not None:
            on = not per_route.message.disabled
            processor = overridden(processor, per_route.field("overrides"))
    return processor if on else None


def _is_on(filter_: Filter, levels: list[Part[Any]]) -> bool:
    """Return whether a filter other than the router's is enabled on a route; some say so in their own settings."""
    on = not filter_.disabled
    for off, settings in _said(levels, filter_.name):
        kind = _PER_ROUTE.get(filter_.kind)
        per_route = settings.unpacked(kind) if settings and kind else None
        on = not off and not (per_route and per_route.message.disabled)
    return on


def _waits(levels: list[Part[Any]], around: Surroundings) -> bool:
    """Return whether a buffer filter before the router's holds the body of this route's requests."""
    for filter_ in around.filters:
        if filter_.name == around.processor.name:
            return False
        if filter_.kind is Kind.BUFFER and _is_on(filter_, levels):
            return True
    return False
