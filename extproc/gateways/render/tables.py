"""Envoy's routes, built from Envoy's own message types."""

from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import RuntimeFractionalPercent
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryPriority,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer, BufferPerRoute
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ExtProcOverrides, ExtProcPerRoute
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import FractionalPercent, Int64Range
from envoy_data_plane.google.protobuf import Any

from extproc.core.placing.pool import Pool
from extproc.gateways.model import NUMBER_HEADER, RETRY_HEADERS
from extproc.gateways.render.numbers import Mode, Numbers

__all__ = ["BUFFER", "EXT_PROC", "NO_LIMIT", "REFUSALS", "RETRY_ON", "repair", "route_table"]

EXT_PROC: Final = "envoy.filters.http.ext_proc"
BUFFER: Final = "whole_small_bodies"
NO_LIMIT: Final = timedelta(0)
RETRY_ON: Final = "retriable-status-codes,connect-failure,refused-stream,reset"
# docs/envoy.md says which server answers with which status; this list follows it.
REFUSALS: Final = [400, 404, 413, 422, 503]
_LARGEST: Final = (1 << 63) - 1
_SMALL_PATHS: Final = ".*/v1/(chat/completions|completions|messages)"


def repair() -> RetryPolicy:
    """Return the policy that retries a request in the next pool."""
    previous = Any.pack(PreviousPrioritiesConfig(update_frequency=1))
    return RetryPolicy(
        retry_on=RETRY_ON,
        retriable_status_codes=REFUSALS,
        num_retries=1,
        retry_back_off=RetryPolicyRetryBackOff(base_interval=timedelta(milliseconds=1)),
        retry_priority=RetryPolicyRetryPriority(
            name="envoy.retry_priorities.previous_priorities", typed_config=previous
        ),
    )


def route_table(numbers: Numbers) -> RouteConfiguration:
    """Return the routes in the order in which they are tried."""
    routes = [_upgrade(numbers), _very_large(numbers), *(_pool(numbers, each) for each in numbers.smaller_pools)]
    host = VirtualHost(
        name="pools",
        domains=["*"],
        include_attempt_count_in_response=True,
        request_body_buffer_limit=numbers.body_bytes if numbers.mode is Mode.BUFFERED else None,
        typed_per_filter_config={EXT_PROC: Any.pack(ExtProcPerRoute(overrides=ExtProcOverrides()))},
        routes=[*routes, *([_small(numbers)] if numbers.has_small_bodies else []), _default(numbers)],
    )
    return RouteConfiguration(name="pools", virtual_hosts=[host])


def _upgrade(numbers: Numbers) -> Route:
    return Route(
        name="upgrade",
        match=RouteMatch(prefix="/", headers=[HeaderMatcher(name="upgrade", present_match=True)]),
        typed_per_filter_config={EXT_PROC: Any.pack(ExtProcPerRoute(disabled=True))},
        route=_to_default(numbers),
    )


def _very_large(numbers: Numbers) -> Route:
    length = Int64Range(start=numbers.bypass_from_bytes, end=_LARGEST)
    return Route(
        name="very_large_body",
        match=RouteMatch(
            prefix="/",
            headers=[HeaderMatcher(name="content-length", range_match=length)],
            runtime_fraction=_percent(numbers.bypass_percent, "dualpool.bypass_percent"),
        ),
        typed_per_filter_config={EXT_PROC: Any.pack(ExtProcPerRoute(disabled=True))},
        route=_to_default(numbers),
    )


def _pool(numbers: Numbers, pool: Pool) -> Route:
    header = HeaderMatcher(name=numbers.set_headers[0], string_match=StringMatcher(exact=pool.name))
    return Route(
        name=pool.name,
        match=RouteMatch(prefix="/", headers=[header]),
        request_headers_to_remove=[NUMBER_HEADER] if numbers.is_repaired(pool) else [],
        route=_repaired(numbers, pool),
    )


def _small(numbers: Numbers) -> Route:
    length = Int64Range(start=1, end=numbers.small_body_bytes + 1)
    reason = numbers.set_headers[2]
    whole = BufferPerRoute(buffer=Buffer(max_request_bytes=numbers.small_body_bytes))
    return Route(
        name="small_body",
        match=RouteMatch(
            safe_regex=RegexMatcher(regex=_SMALL_PATHS),
            headers=[
                HeaderMatcher(name="content-length", range_match=length),
                HeaderMatcher(name=reason, present_match=True, invert_match=True),
            ],
            runtime_fraction=_percent(0, "dualpool.small_bodies_percent"),
        ),
        typed_per_filter_config={BUFFER: Any.pack(whole)},
        request_headers_to_remove=[NUMBER_HEADER] if numbers.is_repaired(numbers.smaller_pools[0]) else [],
        route=_repaired(numbers, numbers.smaller_pools[0]),
    )


def _default(numbers: Numbers) -> Route:
    return Route(
        name=numbers.default_pool.name,
        match=RouteMatch(prefix="/"),
        request_headers_to_remove=[*RETRY_HEADERS],
        route=_to_default(numbers),
    )


def _to_default(numbers: Numbers) -> RouteAction:
    return RouteAction(cluster=numbers.cluster_of(numbers.default_pool), timeout=NO_LIMIT)


def _repaired(numbers: Numbers, pool: Pool) -> RouteAction:
    policy = repair() if numbers.is_repaired(pool) else None
    return RouteAction(cluster=numbers.repaired_cluster_of(pool), timeout=NO_LIMIT, retry_policy=policy)


def _percent(numerator: int, key: str) -> RuntimeFractionalPercent:
    return RuntimeFractionalPercent(default_value=FractionalPercent(numerator=numerator), runtime_key=key)
