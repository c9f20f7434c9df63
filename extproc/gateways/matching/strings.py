"""Evaluation of Envoy's string matchers."""

import re
import warnings
from functools import lru_cache

from envoy.type.matcher.v3.string_pb2 import StringMatcher

__all__ = ["regex_matches", "string_matches"]


def string_matches(matcher: StringMatcher, text: str) -> bool:
    """Return whether a text matches. A custom matcher cannot be evaluated and counts as no match."""
    kind = matcher.WhichOneof("match_pattern")
    if kind is None or kind == "custom":
        return False
    if kind == "safe_regex":
        return regex_matches(matcher.safe_regex.regex, text)
    pattern: str = getattr(matcher, kind)
    if matcher.ignore_case:
        pattern, text = pattern.lower(), text.lower()
    found = {
        "exact": pattern == text,
        "prefix": text.startswith(pattern),
        "suffix": text.endswith(pattern),
        "contains": pattern in text,
    }
    return found[kind]


def regex_matches(pattern: str, text: str) -> bool:
    """Return whether all of a text matches. A pattern that Python rejects, or reads otherwise, matches nothing."""
    compiled = _compiled(pattern)
    return compiled is not None and compiled.fullmatch(text) is not None


@lru_cache(maxsize=4096)  # thousands of routes are compared with the same few
def _compiled(pattern: str) -> re.Pattern[str] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of [[:alpha:]]: all letters to Envoy, some signs to Python
        try:
            return re.compile(pattern)
        except (re.error, FutureWarning, OverflowError, RecursionError):
            return None
