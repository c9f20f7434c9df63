"""The filter chain that Envoy Gateway generates, in its own order or in that of an EnvoyProxy.

Source: Envoy Gateway's `internal/xds/translator/httpfilters.go`.
"""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.additions import PROGRAM_FILTERS, compressors_of, programs_of
from extproc.gateways.kubernetes.envoy_gateway.processors import ExtProc, filter_of
from extproc.gateways.kubernetes.envoy_gateway.routes import (
    BUFFER_FILTER,
    COMPRESSOR_FILTER,
    RATE_LIMITER,
    buffer_limit,
    has_global_limit,
)
from extproc.gateways.kubernetes.envoy_gateway.rules import Rule
from extproc.gateways.kubernetes.envoy_gateway.security import AUTHORIZATION, GUARDS, guards_of
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, made, text_of
from extproc.gateways.kubernetes.type_names import BUFFER, RATE_LIMIT, ROUTER
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["http_filters", "unordered"]

PROCESSOR: Final = "envoy.filters.http.ext_proc"
KNOWN: Final = (*GUARDS, BUFFER_FILTER, PROCESSOR, *PROGRAM_FILTERS, RATE_LIMITER, COMPRESSOR_FILTER)


def http_filters(
    place: Place, rules: list[Rule], processors: list[ExtProc], proxy: LocatedMap
) -> list[LocatedMap]:
    """Return the filters for these rules and processors; `proxy` is the spec of the Gateway's EnvoyProxy."""
    limit = next(filter(None, map(buffer_limit, rules)), None)
    settings = {"@type": BUFFER, "max_request_bytes": limit}
    held = [made(place, name=BUFFER_FILTER, disabled=True, typed_config=settings)] if limit else []
    guards = guards_of(each.security for each in rules)
    rest = [each for each in guards if each["name"] == AUTHORIZATION]
    if any(map(has_global_limit, rules)):
        # It asks its server on routes that have a limit by it, and lets requests of the others pass.
        rest.append(made(place, name=RATE_LIMITER, disabled=True, typed_config={"@type": RATE_LIMIT}))
    first = [each for each in guards if each["name"] != AUTHORIZATION]
    found = [
        *first,
        *held,
        *map(filter_of, sorted(processors, key=_place_in_policy)),
        *programs_of(rules),
        *rest,
        *compressors_of(rules),
    ]
    for position in items_of(proxy, "filterOrder"):
        found = _moved(found, position)
    return [*found, made(place, name="envoy.filters.http.router", typed_config={"@type": ROUTER})]


def _place_in_policy(processor: ExtProc) -> tuple[int, str]:
    """Return the key by which processors are sorted: all first ones of policies come before all second ones."""
    return int(processor.name.rpartition("/")[2]), processor.name


def unordered(manifests: Manifests) -> Iterator[str]:
    """Yield a sentence for each position that is said of the processors and a filter that is not known here."""
    for proxy in manifests.of("EnvoyProxy"):
        for each in items_of(inner(proxy, "spec"), "filterOrder"):
            names = [text_of(each, "name"), text_of(each, "before") or text_of(each, "after")]
            if PROCESSOR in names and not set(names) <= set(KNOWN):
                yield f"{each.place}: the order of {' and '.join(names)} is not checked"


def _moved(filters: list[LocatedMap], position: LocatedMap) -> list[LocatedMap]:
    """Return the filters with those of a type before the first one, or after the last, of another type."""
    before, name = text_of(position, "before"), text_of(position, "name")
    moved = [each for each in filters if _is(each, name)]
    others = [each for each in filters if not _is(each, name)]
    at = [number for number, each in enumerate(others) if _is(each, before or text_of(position, "after"))]
    if not at:
        return filters
    end = at[0] if before else at[-1] + 1
    return [*others[:end], *moved, *others[end:]]


def _is(filter_: LocatedMap, kind: str) -> bool:
    return text_of(filter_, "name").startswith(kind)
