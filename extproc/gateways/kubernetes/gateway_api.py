"""Route matches of the Gateway API, which Istio and Envoy Gateway translate alike, but try in different orders."""

from typing import Any, Final

from extproc.gateways.kubernetes.manifests import inner, items_of, made, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["EXACT", "PREFIX", "REGEX", "matches_of", "path_of"]

# The Gateway API's kinds of paths, and which of them Envoy's are.
EXACT: Final = "Exact"
PREFIX: Final = "PathPrefix"
REGEX: Final = "RegularExpression"
KINDS: Final = {"path": EXACT, "prefix": PREFIX, "path_separated_prefix": PREFIX, "safe_regex": REGEX}


def matches_of(rule: LocatedMap) -> list[tuple[LocatedMap, LocatedMap]]:
    """Return the matches of a rule, each with Envoy's route match; a rule without matches matches everything."""
    given = items_of(rule, "matches") or [LocatedMap(rule.place)]
    return [(each, _match(each)) for each in given]


def path_of(match: LocatedMap) -> tuple[str, str]:
    """Return the kind of the path of Envoy's route match, in the words of the Gateway API, and its text."""
    kind, path = next((kind, path) for kind, path in match.items() if kind in KINDS)
    return KINDS[kind], path["regex"] if isinstance(path, LocatedMap) else path


def _match(given: LocatedMap) -> LocatedMap:
    headers = [_condition(each) for each in items_of(given, "headers")]
    if method := text_of(given, "method"):
        headers.append(made(given.place, name=":method", string_match={"exact": method}))
    asked = [_condition(each) for each in items_of(given, "queryParams")]
    return made(given.place, **_path(inner(given, "path")), headers=headers, query_parameters=asked)


def _path(given: LocatedMap) -> dict[str, Any]:
    kind, value = text_of(given, "type"), text_of(given, "value", "/")
    if kind == REGEX:
        return {"safe_regex": {"regex": value}}
    if kind == EXACT:
        return {"path": value}
    # A prefix is one of whole segments, whether or not it ends in a slash.
    return {"prefix": "/"} if value == "/" else {"path_separated_prefix": value.removesuffix("/")}


def _condition(given: LocatedMap) -> LocatedMap:
    """Return the condition on a header or a query parameter."""
    regex = text_of(given, "type") == REGEX
    value = text_of(given, "value")
    matcher = {"safe_regex": {"regex": value}} if regex else {"exact": value}
    return made(given.place, name=text_of(given, "name"), string_match=matcher)
