"""Searches that the traps of the filter chain share: what comes before and after the router's filter."""

from collections.abc import Iterator
from functools import lru_cache

from extproc.gateways.model import Filter, Gateway, Kind
from extproc.gateways.router import Router
from extproc.gateways.traps.trap import Find, Hit

__all__ = ["after", "before", "in_modes", "is_on", "split"]


def split(gateway: Gateway) -> tuple[tuple[Filter, ...], tuple[Filter, ...]]:
    """Return the filters before the router's and those after it."""
    at = [each.name for each in gateway.filters].index(gateway.processor.name)
    return gateway.filters[:at], gateway.filters[at + 1 :]


def is_on(gateway: Gateway, filter_: Filter) -> bool:
    """Return whether a filter is enabled on a route on which the router is asked."""
    on = _names_on(gateway)
    return not filter_.disabled if on is None else filter_.name in on


@lru_cache(maxsize=1)  # asked of each filter of a gateway
def _names_on(gateway: Gateway) -> frozenset[str] | None:
    """Return the names of the filters that are on where the router is asked, None if it is on no route."""
    asking = [route.filters_on for host in gateway.hosts for route in host.routes if route.processor]
    return frozenset[str]().union(*asking) if asking else None


def before(kind: Kind) -> Find:
    """Search for filters of a kind before the router's."""
    return _beside(kind, 0, "before")


def after(kind: Kind) -> Find:
    """Search for filters of a kind after the router's."""
    return _beside(kind, 1, "after")


def in_modes(find: Find, *modes: str) -> Find:
    """Restrict a search to gateways that send request bodies to the router in one of these modes."""

    def found(gateway: Gateway, router: Router) -> Iterator[Hit]:
        if any(each.modes.request_body in modes for each in gateway.processors):
            yield from find(gateway, router)

    return found


def _beside(kind: Kind, side: int, where: str) -> Find:
    def find(gateway: Gateway, _: Router) -> Iterator[Hit]:
        for each in split(gateway)[side]:
            if each.kind is kind and is_on(gateway, each):
                yield Hit(
                    each.place, f'"{each.name}" ({kind}) is {where} the router\'s "{gateway.processor.name}"'
                )

    return find
