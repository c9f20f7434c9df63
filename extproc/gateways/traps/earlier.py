"""Which routes of a host take all requests of a later one, found among thousands without asking all of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from extproc.gateways.matching.paths import LITERAL, REGEX, PathMatch
from extproc.gateways.model import Host, Route

__all__ = ["Earlier", "earlier_routes"]

_ALL_PERCENT: Final = 100
# A key for paths: literals and expressions by their texts, and all others, which are few, together.
Key = tuple[str, str]
Pair = tuple[str, str]
_OTHERS: Final = ("others", "")
_EXPRESSIONS: Final = ("expressions", "")
_OF_ALL: Final = ("of all", "")


class Earlier:
    """The routes of one host by what they ask for: a path, and a value of a header if they ask for any.

    A literal path is covered by one whose text is a beginning of its own, or by an expression; and a route that
    asks for the value of a header takes all of another one only if that asks for it, too.
    """

    def __init__(self, host: Host) -> None:
        self._positions = {route: at for at, route in enumerate(host.routes)}
        self._by_need: dict[tuple[Key, Pair | None], list[Route]] = {}
        common = Counter(pair for route in host.routes for pair in _pairs(route))
        for route in host.routes:
            if route.percent >= _ALL_PERCENT:
                pair = min(_pairs(route), key=common.__getitem__, default=None)  # the rarest
                for key in _keys(route.path):
                    self._by_need.setdefault((key, pair), []).append(route)

    def hides(self, route: Route, sent: Mapping[str, str], path: PathMatch | None = None) -> bool:
        """Return whether a route before this one takes all of its requests that have the headers `sent`.

        With a path, those of its requests with this path.
        """
        position = self._positions[route]
        if path is not None:
            route = replace(route, path=path)
        pairs = (None, *dict.fromkeys([*_pairs(route), *sent.items()]))
        return any(
            self._positions[each] < position and each.takes_all_of(route, sent)
            for key in _covering(route.path)
            for pair in pairs
            for each in self._by_need.get((key, pair), ())
        )


@lru_cache(maxsize=4)  # traps ask about one host after the other
def earlier_routes(host: Host) -> Earlier:
    """Return the index of a host's routes."""
    return Earlier(host)


def _keys(path: PathMatch) -> Iterator[Key]:
    """Yield the keys under which a route with this path is found."""
    if path.is_any:
        yield _OF_ALL
    elif path.kind == REGEX:
        yield _EXPRESSIONS
        yield REGEX, path.text
    elif path.kind in LITERAL and not path.any_case:
        yield "literal", path.text
    else:
        yield _OTHERS


def _covering(path: PathMatch) -> Iterator[Key]:
    """Yield the keys of all routes that may cover this path."""
    yield _OF_ALL
    yield _OTHERS
    if path.kind == REGEX:
        yield REGEX, path.text
    elif path.kind in LITERAL and not path.any_case:
        yield _EXPRESSIONS
        yield from (("literal", path.text[:end]) for end in range(len(path.text) + 1))


def _pairs(route: Route) -> Iterator[Pair]:
    for each in route.headers:
        if each.exact is not None and not each.inverted:
            yield each.name, each.exact
