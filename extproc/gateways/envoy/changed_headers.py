"""Detection of filters that remove, overwrite or add a header, as far as their configuration shows it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.lua.v3.lua_pb2 import Lua

from extproc.gateways.matching.strings import string_matches
from extproc.gateways.model import CONDITIONS, RETRY_HEADERS
from extproc.gateways.parsing.parts import Part

__all__ = ["asked_by", "asks_retries", "changed", "removes", "route_comes_last"]

_OVERWRITES: Final = (
    HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS,
    HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
)
# Lua that gives requests a header by which they ask for retries.
_ASKS: Final = re.compile(rf":(?:add|replace)\s*\(\s*[\"']({'|'.join(RETRY_HEADERS)})[\"']", re.IGNORECASE)
_CHANGES: Final = re.compile(r":(?:remove|replace)\s*\(")


def changed(settings: Part[Any], names: Iterable[str]) -> frozenset[str]:
    """Return which of these headers a filter changes in a way that the next route selection sees."""
    if mutation := settings.unpacked(HeaderMutation):
        said = mutation.message.mutations.request_mutations
        return frozenset(
            name for name in names if any(removes(each, name) or _overwrites(each, name) for each in said)
        )
    if lua := settings.unpacked(Lua):
        return frozenset(name for name in names if any(_may_change(code, name) for code in _codes(lua.message)))
    return frozenset()


def asks_retries(settings: Part[Any]) -> frozenset[str]:
    """Return the headers by which requests that have passed a filter ask for retries."""
    asked: set[str] = set()
    if mutation := settings.unpacked(HeaderMutation):
        for each in mutation.message.mutations.request_mutations:
            asked = {name for name in asked if not removes(each, name)} | asked_by(each.append)
    if lua := settings.unpacked(Lua):
        code = f"{lua.message.inline_code}\n{lua.message.default_source_code.inline_string}"
        asked = {found.lower() for found in _ASKS.findall(code)}
    return frozenset(asked)


def route_comes_last(settings: Part[Any]) -> bool:
    """Return whether a filter has a route's mutations come after those of its host and table, not before."""
    mutation = settings.unpacked(HeaderMutation)
    return bool(mutation and mutation.message.most_specific_header_mutations_wins)


def asked_by(option: HeaderValueOption) -> frozenset[str]:
    """Return the header that this adds if it asks for retries; Envoy ignores conditions that it does not know."""
    name, value = option.header.key.lower(), option.header.value or option.header.raw_value.decode("latin-1")
    if (
        name not in RETRY_HEADERS
        or option.append_action == HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS
    ):
        return frozenset()
    known = CONDITIONS.intersection(each.strip() for each in value.split(","))
    return frozenset([name] if known or "%" in value else [])  # or what it is depends on the request


def removes(mutation: Any, name: str) -> bool:  # noqa: ANN401  (a HeaderMutation of common.mutation_rules)
    """Return whether a mutation removes this header."""
    if mutation.HasField("remove_on_match"):
        return string_matches(mutation.remove_on_match.key_matcher, name)
    return bool(mutation.remove.lower() == name)


def _overwrites(mutation: Any, name: str) -> bool:  # noqa: ANN401
    option = mutation.append
    return option.header.key.lower() == name and option.append_action in _OVERWRITES


def _codes(lua: Any) -> Iterator[str]:  # noqa: ANN401  (a Lua; the messages have no types)
    """Yield the code that runs on requests; none if clear_route_cache is false, because the route is kept then."""
    if not lua.HasField("clear_route_cache") or lua.clear_route_cache.value:
        yield lua.inline_code
        yield lua.default_source_code.inline_string


def _may_change(code: str, name: str) -> bool:
    return name in code.lower() and _CHANGES.search(code) is not None
