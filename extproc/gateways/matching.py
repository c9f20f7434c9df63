"""Envoy's matcher of strings."""

import re

from envoy.type.matcher.v3.string_pb2 import StringMatcher

__all__ = ["regex_matches", "string_matches"]


def string_matches(matcher: StringMatcher, text: str) -> bool:
    """Whether a text matches; a custom matcher, which cannot be known, does not."""
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
    """Whether the whole of a text matches; what Python takes for no pattern does not."""
    try:
        return re.fullmatch(pattern, text) is not None
    except re.error:
        return False
