"""Evaluation of Envoy's string matchers."""

import re

from envoy.type.matcher.v3.string_pb2 import StringMatcher

__all__ = ["regex_matches", "string_matches"]


def string_matches(matcher: StringMatcher, text: str) -> bool:
    """Return whether a text matches. A custom matcher cannot be evaluated and counts as no match."""
    kind = matcher.WhichOneof("match_pattern")
    if kind == "custom":
        return False
    pattern: str = matcher.safe_regex.regex if kind == "safe_regex" else getattr(matcher, kind or "exact")
    if kind == "safe_regex":
        return regex_matches(pattern, text)
    if matcher.ignore_case:
        pattern, text = pattern.lower(), text.lower()
    found = {
        "exact": pattern == text,
        "prefix": text.startswith(pattern),
        "suffix": text.endswith(pattern),
        "contains": pattern in text,
    }
    return kind is not None and found.get(kind, False)


def regex_matches(pattern: str, text: str) -> bool:
    """Return whether all of a text matches. A pattern that Python rejects counts as no match."""
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return False
