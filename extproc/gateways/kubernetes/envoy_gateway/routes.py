"""The routes that Envoy Gateway generates: one for each match of an HTTPRoute's rules, with policies applied.

Source: Envoy Gateway's `internal/gatewayapi/route.go` and `xds/translator/route.go`.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

from extproc.gateways.kubernetes.envoy_gateway.rules import Rule
from extproc.gateways.kubernetes.envoy_gateway.security import names_of
from extproc.gateways.kubernetes.gateway_api import EXACT, PREFIX, REGEX, matches_of, path_of
from extproc.gateways.kubernetes.header_changes import changes_of_filters
from extproc.gateways.kubernetes.manifests import (
    bytes_of,
    inner,
    items_of,
    made,
    merged,
    name_of,
    number_of,
    optional_seconds,
    seconds_of,
    text_of,
    texts_of,
    used,
)
from extproc.gateways.kubernetes.type_names import (
    BUFFER_PER_ROUTE,
    EXT_PROC_PER_ROUTE,
    FILTER_CONFIG,
    PREVIOUS_PRIORITIES,
    RATE_LIMIT_PER_ROUTE,
)
from extproc.gateways.parsing.sources import LocatedMap

__all__ = [
    "BUFFER_FILTER",
    "COMPRESSOR_FILTER",
    "RATE_LIMITER",
    "Ranked",
    "buffer_limit",
    "compressions",
    "has_global_limit",
    "routes_of",
]

# Defaults of Envoy Gateway 1.9.
RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
STATUSES: Final = [503]
NUM_RETRIES: Final = 2
# The order in which Envoy Gateway tries kinds of paths: an expression before any prefix.
PATHS: Final = (EXACT, REGEX, PREFIX)


# Their filters: the first one is before those of all processors, the others after them.
BUFFER_FILTER: Final = "envoy.filters.http.buffer"
RATE_LIMITER: Final = "envoy.filters.http.ratelimit"
COMPRESSOR_FILTER: Final = "envoy.filters.http.compressor"


Ranked = tuple[tuple[int, ...], LocatedMap]
"""A route behind the key by which the routes of a host are sorted."""


def has_global_limit(rule: Rule) -> bool:
    """Return whether a rule's policy asks the rate limit service."""
    return "global" in inner(rule.traffic, "rateLimit")


def buffer_limit(rule: Rule) -> int | None:
    """Return the largest body that the buffer filter holds for a rule, None if its policy does not want that."""
    limit = text_of(inner(rule.traffic, "requestBuffer"), "limit")
    return bytes_of(limit, rule.traffic.place) if limit else None


def compressions(rule: Rule) -> dict[str, LocatedMap]:
    """Return how a rule's policy compresses responses, each under the name of its filter.

    Of `compressor` only the types with settings, as in `{type: Gzip, gzip: {}}`; `compression` is its older name.
    """
    newer = items_of(rule.traffic, "compressor")
    given = [each for each in newer if text_of(each, "type").lower() in each]
    given = given if newer else items_of(rule.traffic, "compression")
    return {f"{COMPRESSOR_FILTER}.{text_of(each, 'type').lower()}": each for each in given}


def routes_of(rule: Rule) -> Iterator[Ranked]:
    """Yield Envoy's routes for a rule, each with its sort key."""
    action, changes = _action(rule), _changes(rule)
    enabled: dict[str, Any] = {each.name: {"@type": EXT_PROC_PER_ROUTE, "overrides": {}} for each in rule.asked}
    if has_global_limit(rule):
        asked = [{"actions": [{"generic_key": {"descriptor_value": rule.cluster}}]}]
        enabled[RATE_LIMITER] = {"@type": RATE_LIMIT_PER_ROUTE, "rate_limits": asked}
    if limit := buffer_limit(rule):
        enabled[BUFFER_FILTER] = {"@type": BUFFER_PER_ROUTE, "buffer": {"max_request_bytes": limit}}
    enabled |= {name: {"@type": FILTER_CONFIG} for name in (*names_of(rule.security), *compressions(rule))}
    for given, match in matches_of(rule.given):
        route = made(
            rule.given.place,
            name=name_of(rule.route),
            match=match,
            route=action,
            typed_per_filter_config=enabled,
        )
        yield _precedence(given, match), merged(route, changes)


def _action(rule: Rule) -> LocatedMap | None:
    """Return how a rule's requests are sent on; None if Envoy answers them itself, as with a redirect."""
    if not used(items_of(rule.given, "backendRefs")):
        return None
    of_http = inner(rule.traffic, "timeout", "http")
    longest, idle = optional_seconds(of_http, "maxStreamDuration"), text_of(of_http, "streamIdleTimeout")
    return made(
        rule.given.place,
        cluster=rule.cluster,
        timeout=_timeout(rule),
        idle_timeout=seconds_of(idle, of_http.place) if idle else None,
        max_stream_duration={"max_stream_duration": longest} if longest else None,
        retry_policy=_retry(rule),
        upgrade_configs=[{"upgrade_type": name} for name in _upgrades(rule)],
    )


def _changes(rule: Rule) -> LocatedMap:
    """Return the changes of headers; what only one of the backends removes is not removed from all requests."""
    changes = changes_of_filters(rule.given)
    for each in used(items_of(rule.given, "backendRefs")):
        added = changes_of_filters(each).get("request_headers_to_add")
        changes = merged(changes, made(each.place, request_headers_to_add=added))
    return changes


def _upgrades(rule: Rule) -> list[str]:
    """Return the protocols to which requests may switch: WebSocket, unless the policy says something else."""
    said = [text_of(each, "type") for each in items_of(rule.traffic, "httpUpgrade")]
    return said or ([] if "requestBuffer" in rule.traffic else ["websocket"])


def _precedence(given: LocatedMap, match: LocatedMap) -> tuple[int, ...]:
    """Return a match's sort key: kind and length of the path, then the numbers of other conditions.

    The slash at the end of a prefix counts, although it has no other meaning.
    """
    length = len(text_of(inner(given, "path"), "value", "/"))
    counts = [count for name in ("headers", "query_parameters") for count in _counts(match[name])]
    return PATHS.index(path_of(match)[0]), -length, *counts


def _counts(conditions: Collection[LocatedMap]) -> tuple[int, int]:
    """Return how many conditions there are, and how many are on a value, as sort keys: most come first."""
    return -len(conditions), -sum("exact" in each["string_match"] for each in conditions)


def _timeout(rule: Rule) -> str | None:
    """Return the timeout of a whole response; with `retry` that of the backend is one of each try instead."""
    timeouts = inner(rule.given, "timeouts")
    of_backend = "" if "retry" in rule.given else text_of(timeouts, "backendRequest")
    said = of_backend or text_of(timeouts, "request")
    said = said or text_of(inner(rule.traffic, "timeout", "http"), "requestTimeout")
    return seconds_of(said, rule.given.place) if said else None


def _retry(rule: Rule) -> LocatedMap | None:
    """Return the retries of the HTTPRoute's rule, or else those of its BackendTrafficPolicy, never both."""
    if "retry" in rule.given:
        retry = inner(rule.given, "retry")
        return made(
            retry.place,
            retry_on=RETRY_ON,
            retriable_status_codes=texts_of(retry, "codes") or STATUSES,
            num_retries=number_of(retry, "attempts", NUM_RETRIES),
            per_try_timeout=optional_seconds(inner(rule.given, "timeouts"), "backendRequest"),
        )
    if "retry" not in rule.traffic:
        return None
    retry = inner(rule.traffic, "retry")
    on = inner(retry, "retryOn")
    per_priority = number_of(retry, "numAttemptsPerPriority", 0)
    previous = {"@type": PREVIOUS_PRIORITIES, "update_frequency": per_priority}
    priority = {"name": "envoy.retry_priorities.previous_priorities", "typed_config": previous}
    return made(
        retry.place,
        retry_on=",".join(texts_of(on, "triggers")) or RETRY_ON,
        # Conditions of its own leave no status but those that they list.
        retriable_status_codes=texts_of(on, "httpStatusCodes") if on else STATUSES,
        num_retries=number_of(retry, "numRetries", NUM_RETRIES),
        retry_priority=priority if per_priority else None,
        per_try_timeout=optional_seconds(inner(retry, "perRetry"), "timeout"),
    )
