"""Route matches of the Gateway API, which Istio and Envoy Gateway translate alike, but try in different orders."""

from typing import Any

from extproc.gateways.kubernetes.manifests import inner, items_of, made, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["matches_of", "path_weight"]


def matches_of(rule: LocatedMap) -> list[LocatedMap]:
    """Return an Envoy route match for each match of a rule; a rule without matches matches everything."""
    given = items_of(rule, "matches")
    return [_match(each) for each in given] if given else [made(rule.place, prefix="/")]


def path_weight(match: LocatedMap, kinds: tuple[str, ...]) -> tuple[int, int]:
    """Return the sort key of a match's path: its kind, in the gateway's order of them, and its length."""
    rank = next(at for at, kind in enumerate(kinds) if kind in match)
    path = match[kinds[rank]]
    return rank, -len(path["regex"] if isinstance(path, LocatedMap) else path)


def _match(given: LocatedMap) -> LocatedMap:
    path = inner(given, "path")
    value = text_of(path, "value", "/")
    kind = {"Exact": "path", "RegularExpression": "safe_regex"}.get(text_of(path, "type"), "prefix")
    headers = [_header(each) for each in items_of(given, "headers")]
    if method := text_of(given, "method"):
        headers.append(made(given.place, name=":method", string_match={"exact": method}))
    said: dict[str, Any] = {kind: {"regex": value} if kind == "safe_regex" else value}
    asked = [{"name": text_of(each, "name")} for each in items_of(given, "queryParams")]
    return made(given.place, **said, headers=headers, query_parameters=asked)


def _header(given: LocatedMap) -> LocatedMap:
    regex = text_of(given, "type") == "RegularExpression"
    value = text_of(given, "value")
    matcher = {"safe_regex": {"regex": value}} if regex else {"exact": value}
    return made(given.place, name=text_of(given, "name"), string_match=matcher)
