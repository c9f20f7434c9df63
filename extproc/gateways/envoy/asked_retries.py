"""Where a gateway itself adds the headers by which internal clients ask Envoy for retries.

The filters of the chain add and remove headers first, each with its own settings and then with those of the
weighted cluster, the route, the host and the table, or in the opposite order if the filter says so. What these say
in `request_headers_to_add` comes last, each level's removals before what it adds: a weighted cluster's, and then
the others' in the same order, or in the opposite one if the table says so.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutationPerRoute

from extproc.gateways.envoy.changed_headers import asked_by, removes
from extproc.gateways.envoy.overrides import said_of, weighted_of
from extproc.gateways.model import Filter
from extproc.gateways.parsing.parts import Part
from extproc.gateways.parsing.sources import Place

__all__ = ["asks_retries_place"]

Asked = dict[str, Place]
"""By header, where it was added."""


def asks_retries_place(levels: list[Part[Any]], filters: Collection[Filter]) -> Place | None:
    """Return where a header was added with which a route's requests ask for retries; None if they have none.

    `levels` are the route's table, host and the route itself; `filters` are those that are on there.
    """
    ways = [[*levels, each] for each in weighted_of(levels)] or [levels]
    return next((place for way in ways for place in _asked(way, filters).values()), None)


def _asked(way: list[Part[Any]], filters: Collection[Filter]) -> Asked:
    """Return what is asked on the way to a cluster: table, host, route and, of several, the weighted cluster."""
    asked: Asked = {}
    for each in filters:
        asked |= _by_filter(each, way)
    levels, weighted = way[:3], way[3:]
    in_order = levels if levels[0].message.most_specific_header_mutations_wins else levels[::-1]
    return _after([*weighted, *in_order], asked)


def _by_filter(filter_: Filter, levels: list[Part[Any]]) -> Asked:
    asked = dict.fromkeys(filter_.asks_retries, filter_.place)
    for _, settings in said_of(levels if filter_.route_comes_last else levels[::-1], filter_.name):
        held = settings.unpacked(HeaderMutationPerRoute) if settings else None
        for each in held.field("mutations").items("request_mutations") if held else ():
            asked = {name: place for name, place in asked.items() if not removes(each.message, name)}
            asked |= dict.fromkeys(asked_by(each.message.append), each.place)
    return asked


def _after(way: Iterable[Part[Any]], asked: Asked) -> Asked:
    """Return what is left of these headers, and added to them, after some levels."""
    for level in way:
        removed = {name.lower() for name in level.message.request_headers_to_remove}
        asked = {name: place for name, place in asked.items() if name not in removed} | dict(_added(level))
    return asked


def _added(level: Part[Any]) -> Iterator[tuple[str, Place]]:
    for each in level.items("request_headers_to_add"):
        for name in asked_by(each.message):
            yield name, each.place
