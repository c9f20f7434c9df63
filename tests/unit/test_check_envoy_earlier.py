"""The search for the routes that hide others among thousands: the answers of asking all, with less work."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.gateways.matching.headers import HeaderMatch
from extproc.gateways.matching.paths import PathMatch
from extproc.gateways.model import Host, Route
from extproc.gateways.parsing.sources import Place
from extproc.gateways.traps.earlier import Earlier
from tests.envoy.harness.gateway import Document, load, route, virtual_host
from tests.traps.finding import names_in

TEAMS = 200
PATHS = st.builds(
    PathMatch,
    st.sampled_from(["prefix", "path", "path_separated_prefix", "safe_regex", "connect_matcher"]),
    st.sampled_from(["", "/", "/a", "/A", "/a/", "/a/b", "/.*", "/a.*", "/a/.*", "(/a|/b)/.*"]),
    st.booleans(),
).filter(lambda path: not (path.any_case and path.kind not in ("prefix", "path", "path_separated_prefix")))
HEADERS = st.builds(
    HeaderMatch,
    st.sampled_from(["pool", "team"]),
    exact=st.sampled_from([None, "a", "b"]),
    inverted=st.booleans(),
)


def made(path: PathMatch, headers: list[HeaderMatch], percent: float) -> Route:
    """Return a route with these conditions; nothing else of it matters here."""
    return Route(
        name="",
        place=Place(),
        path=path,
        headers=tuple(headers),
        other_conditions=frozenset(),
        percent=percent,
        clusters=(),
        timeout_ms=0.0,
        retry=None,
        processor=None,
        waits_for_whole_body=False,
        body_limit_bytes=0,
        body_limit_place=Place(),
    )


ROUTES = st.builds(made, PATHS, st.lists(HEADERS, max_size=2), st.sampled_from([100.0, 100.0, 50.0]))


@given(st.lists(ROUTES, max_size=6), st.dictionaries(st.sampled_from(["pool", "x"]), st.sampled_from("ab")))
def test_the_search_finds_what_asking_all_finds(routes: list[Route], sent: dict[str, str]) -> None:
    """Whatever the paths and headers are, and whatever is sent."""
    earlier = Earlier(Host("", Place(), tuple(routes)))
    for at, each in enumerate(routes):
        assert any(one.takes_all_of(each, sent) for one in routes[:at]) == earlier.hides(each, sent)


def by_prefix(match: Document, team: str) -> None:
    """Tell teams by a prefix."""
    match["prefix"] = f"/{team}/"


def by_expression(match: Document, team: str) -> None:
    """Tell teams by a regular expression."""
    del match["prefix"]
    match["safe_regex"] = {"regex": f"/{team}/.*"}


def by_header(match: Document, team: str) -> None:
    """Tell teams by a header."""
    match["headers"] = [*match.get("headers", []), {"name": "x-team", "string_match": {"exact": team}}]


@pytest.mark.parametrize("tell", [by_prefix, by_expression, by_header])
def test_the_routes_of_many_teams_are_not_all_compared_with_each_other(
    tell: Callable[[Document, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work grows with the number of teams that have routes to the pools, not with its square."""
    compared, takes_all_of = [0], Route.takes_all_of

    def counted(*arguments: Any) -> bool:
        compared[0] += 1
        return takes_all_of(*arguments)

    monkeypatch.setattr(Route, "takes_all_of", counted)
    document = load("streamed")
    for name in ("long", "short"):
        ours = route(document, name)
        for team in range(TEAMS):
            theirs = deepcopy(ours) | {"name": f"{name} of {team}"}
            tell(theirs["match"], f"team{team}")
            virtual_host(document)["routes"].insert(0, theirs)
    assert set() == names_in(document)
    assert compared[0] < 40 * TEAMS
