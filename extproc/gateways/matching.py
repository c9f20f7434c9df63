"""Envoy's matcher of strings."""

import re

from envoy.type.matcher.v3.string_pb2 import StringMatcher

__all__ = ["string_matches"]


def string_matches(matcher: StringMatcher, text: str) -> bool:
    """Whether a text matches; a custom matcher, which cannot be known, does not."""
    kind = matcher.WhichOneof("match_pattern")
    if kind == "custom":
        return False
    pattern: str = matcher.safe_regex.regex if kind == "safe_regex" else getattr(matcher, kind or "exact")
    if kind == "safe_regex":
        try:
            return re.fullmatch(pattern, text) is not None
        except re.error:
            return False
    if matcher.ignore_case:
        pattern, text = pattern.lower(), text.lower()
    found = {
        "exact": pattern == text,
        "prefix": text.startswith(pattern),
        "suffix": text.endswith(pattern),
        "contains": pattern in text,
    }
    return kind is not None and found.get(kind, False)
