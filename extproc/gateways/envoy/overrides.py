"""What routes say of the filters: which are on, and with which settings; the most specific level wins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any, Final

from envoy.config.route.v3.route_components_pb2 import FilterConfig, Route, VirtualHost
from envoy.extensions.filters.http.buffer.v3.buffer_pb2 import BufferPerRoute
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthzPerRoute
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import ExtProcPerRoute
from envoy.extensions.filters.http.ratelimit.v3.rate_limit_pb2 import RateLimitPerRoute

from extproc.gateways.envoy.processors import overridden
from extproc.gateways.envoy.upgrades import Upgrades
from extproc.gateways.envoy.waiting import Holding, holds
from extproc.gateways.model import Filter, Kind, Limits, Processor
from extproc.gateways.parsing.parts import Part

__all__ = [
    "Holders",
    "Surroundings",
    "filters_on",
    "holding",
    "is_on",
    "processor_of_all",
    "said_of",
    "tuned",
    "weighted_of",
]

# Messages by which a route disables such a filter.
_PER_ROUTE: Final[dict[Kind, Any]] = {
    Kind.AUTH: ExtAuthzPerRoute,
    Kind.BUFFER: BufferPerRoute,
    Kind.PROCESSOR: ExtProcPerRoute,
}


@dataclass(frozen=True)
class Surroundings:
    """The context of a route: the filter chain, the router's filter in it, the listener's limits and upgrades."""

    filters: tuple[Filter, ...]
    processor: Processor
    limits: Limits
    upgrades: Upgrades

    @cached_property
    def before(self) -> tuple[Filter, ...]:
        """The filters before the router's."""
        return tuple(takewhile(lambda each: each.name != self.processor.name, self.filters))

    @cached_property
    def is_off(self) -> bool:
        """Whether the router's filter is off, unless a route says otherwise."""
        return self.filters[len(self.before)].disabled

    @cached_property
    def _on(self) -> tuple[Filter, ...]:
        return tuple(each for each in self.filters if not each.disabled)

    @cached_property
    def _off(self) -> dict[str, list[Filter]]:
        found: dict[str, list[Filter]] = {}
        for each in self.filters:
            if each.disabled:
                found.setdefault(each.name, []).append(each)
        return found

    def concerned(self, levels: Iterable[Part[Any]]) -> list[Filter]:
        """Return the filters that may be on, given these levels: of thousands, most are off unless one says so."""
        said = dict.fromkeys(name for level in levels for name in level.message.typed_per_filter_config)
        return [*self._on, *(each for name in said for each in self._off.get(name, ()))]


@dataclass(frozen=True, slots=True)
class Holders:
    """The names of the filters that hold a route's requests, by what they hold."""

    waiting: frozenset[str]
    returning: frozenset[str]


def said_of(levels: Iterable[Part[Any]], name: str) -> Iterator[tuple[bool, Part[Any] | None]]:
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


def processor_of_all(levels: list[Part[Any]], around: Surroundings) -> Processor | None:
    """Return the router's filter on one route, None if it is off for any of the route's weighted clusters."""
    found = [_processor([*levels, each], around) for each in weighted_of(levels)] or [_processor(levels, around)]
    return found[0] if all(found) else None


def holding(levels: list[Part[Any]], around: Surroundings) -> Holders:
    """Return the filters that hold requests on a route, or on that to any of its weighted clusters."""
    ways = [[*levels, each] for each in weighted_of(levels)] or [levels]
    found = [(each.name, _holding(each, way)) for way in ways for each in around.concerned(way)]
    return Holders(
        frozenset(name for name, held in found if held.waits),
        frozenset(name for name, held in found if held.returns_bodies),
    )


def _holding(filter_: Filter, levels: list[Part[Any]]) -> Holding:
    held = Holding(filter_.waits, filter_.returns_bodies)
    for _, settings in said_of(levels, filter_.name):
        held = (holds(settings, filter_) if settings else None) or held
    if filter_.kind is Kind.RATE_LIMIT and held.waits and not _has_limits(levels, filter_):
        return replace(held, waits=False)
    return held


def _has_limits(levels: list[Part[Any]], filter_: Filter) -> bool:
    """Return whether a limit is said on any level: a filter that asks a server has nothing to ask it otherwise."""
    if any(each.message.rate_limits for each in levels if isinstance(each.message, VirtualHost)):
        return True
    if any(each.message.route.rate_limits for each in levels if isinstance(each.message, Route)):
        return True
    own = (settings.unpacked(RateLimitPerRoute) for _, settings in said_of(levels, filter_.name) if settings)
    return filter_.has_limits or any(each and each.message.rate_limits for each in own)


def weighted_of(levels: list[Part[Any]]) -> Iterator[Part[Any]]:
    """Yield the weighted clusters of a route, the last of the levels, but those that get nothing."""
    clusters = levels[-1].field("route").field("weighted_clusters").items("clusters")
    return (each for each in clusters if each.message.weight.value > 0)


def _processor(levels: list[Part[Any]], around: Surroundings) -> Processor | None:
    """Return the router's filter on one route, None if it is off there."""
    processor = around.processor
    on = not around.is_off
    for off, settings in said_of(levels, processor.name):
        on = not off
        per_route = settings.unpacked(ExtProcPerRoute) if settings else None
        if per_route is not None:
            on = not per_route.message.disabled
            processor = overridden(processor, per_route.field("overrides"))
    return processor if on else None


def filters_on(levels: list[Part[Any]], around: Surroundings) -> list[Filter]:
    """Return the filters that are on on a route."""
    return [each for each in around.concerned(levels) if is_on(each, levels)]


def is_on(filter_: Filter, levels: list[Part[Any]]) -> bool:
    """Return whether a filter is enabled on a route; some say so in their own settings."""
    on = not filter_.disabled
    for off, settings in said_of(levels, filter_.name):
        kind = _PER_ROUTE.get(filter_.kind)
        per_route = settings.unpacked(kind) if settings and kind else None
        on = not off and not (per_route and per_route.message.disabled)
    return on


def tuned(route: Part[Any], filters: Iterable[Filter]) -> frozenset[str]:
    """Return the names of the filters that a route, or one of its weighted clusters, has settings for."""
    said = [name for level in (route, *weighted_of([route])) for name in level.message.typed_per_filter_config]
    if route.message.route.rate_limits:
        said += [each.name for each in filters if each.kind is Kind.RATE_LIMIT]
    return frozenset(said)
