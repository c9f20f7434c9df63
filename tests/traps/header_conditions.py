"""Conditions on the pool's header, and what they match: the checker and the real Envoy have to agree on each."""

from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final

from tests.envoy.harness.gateway import Document, route

__all__ = ["ABSENT", "SHORT", "arriving_on", "reached_by"]

_NOT_SHORT: Final = {"string_match": {"exact": "short"}, "invert_match": True}
# Whether a request without the header matches.
ABSENT: Final = MappingProxyType(
    {
        "not this value": (_NOT_SHORT, False),
        "not this value, or absent": (_NOT_SHORT | {"treat_missing_header_as_empty": True}, True),
        "no number": ({"range_match": {"start": 1, "end": 2}, "invert_match": True}, False),
        "absent": ({"present_match": False}, True),
        "not present": ({"present_match": True, "invert_match": True}, True),
        "not absent": ({"present_match": False, "invert_match": True}, False),
    }
)
# Whether the value "short" matches, by the fields that string_match has replaced.
SHORT: Final = MappingProxyType(
    {
        "prefix": ({"prefix_match": "sho"}, True),
        "other prefix": ({"prefix_match": "lo"}, False),
        "suffix": ({"suffix_match": "rt"}, True),
        "other suffix": ({"suffix_match": "ng"}, False),
        "part": ({"contains_match": "or"}, True),
        "other part": ({"contains_match": "on"}, False),
    }
)


def arriving_on(document: Document, condition: dict[str, Any]) -> None:
    """Let the default route have a condition on the pool's header."""
    _only(document, "long", condition)


def reached_by(document: Document, condition: dict[str, Any]) -> None:
    """Let the short pool's route have another condition on its header."""
    _only(document, "short", condition)


def _only(document: Document, name: str, condition: dict[str, Any]) -> None:
    route(document, name)["match"]["headers"] = [{"name": "x-token-budget-pool", **deepcopy(condition)}]
