"""Routes around the router's filter, for requests that it should not hold, and which of those they leave to it."""

from collections.abc import Mapping
from typing import Final

from extproc.core.apis import FAMILIES, api_of
from extproc.gateways.matching.paths import LITERAL, PathMatch
from extproc.gateways.model import Host, Route
from extproc.gateways.traps.earlier import earlier_routes

__all__ = ["READ", "UNREAD", "held_path", "serves"]

READ: Final = tuple(path for family in FAMILIES.values() for path in (f"/v1/{family.endpoint}", *family.paths))
"""Paths of requests whose body the router waits for; it lets others pass at their headers."""
USUAL: Final = tuple(f"/v1/{family.endpoint}" for family in FAMILIES.values())
"""The usual path of each API among them."""
UNREAD: Final = ("/v1/audio/transcriptions",)
"""A path of others, with large bodies."""


def held_path(host: Host, route: Route, header: str, value: str, paths: tuple[str, ...]) -> str | None:
    """Return a path on which POST requests with this header stay on a route, with the router's filter.

    None if all of these paths that the route takes are those of routes before it on which the filter is off.
    """
    around = [
        each
        for each in host.routes[: host.routes.index(route)]
        if each.processor is None and each.percent > 0 and _takes(each, route, header, value)
    ]
    if (asked := _below(route.path, paths)) is None:
        overlaps = any(each.path.may_overlap(route.path) for each in around)
        return None if overlaps else route.path.text
    return next((path for path in asked if not any(each.path.covers(_exactly(path)) for each in around)), None)


def serves(host: Host, route: Route, sent: Mapping[str, str]) -> bool:
    """Return whether requests of any API with the headers `sent` get to a route; True if that is not known."""
    paths = None if route.path.any_case else _below(route.path, USUAL)
    earlier = earlier_routes(host)
    return not paths or not all(earlier.hides(route, sent, _exactly(path)) for path in paths)


def _takes(around: Route, route: Route, header: str, value: str) -> bool:
    """Return whether a route takes the other one's requests that have this header, if their paths allow it."""
    sent = {header: value, ":method": "POST"}
    wanted = around.header(header)
    return (
        wanted is not None
        and all(each in route.headers or each.matches_known(sent) for each in around.headers)
        and around.other_conditions <= route.other_conditions
    )


def _below(path: PathMatch, paths: tuple[str, ...]) -> list[str] | None:
    """Return which of these paths a route takes, below its prefix if none by themselves; None if not known."""
    if path.kind == "path" and not path.any_case:
        return [path.text] if api_of("POST", path.text) or set(UNREAD) <= set(paths) else []
    if found := [each for each in paths if path.covers(_exactly(each))]:
        return found
    return [path.text.rstrip("/") + each for each in paths] if path.kind in LITERAL else None


def _exactly(path: str) -> PathMatch:
    return PathMatch("path", path)
