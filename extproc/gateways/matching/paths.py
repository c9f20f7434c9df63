"""Path conditions of routes, and which of them take all that others take."""

import re
from dataclasses import dataclass

from extproc.gateways.matching.strings import regex_matches

__all__ = ["LITERAL", "PathMatch"]

LITERAL = ("prefix", "path", "path_separated_prefix")
REGEX = "safe_regex"
OF_ALL = ("", "/")
# A group without anything in it that could contain a parenthesis of another meaning.
_GROUP = re.compile(r"\([^()\\\[]*\)")


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A route's condition on the path: `kind` is that of Envoy's path_specifier, `text` its value.

    `any_case` is for the kinds of LITERAL only.
    """

    kind: str
    text: str
    any_case: bool = False

    @property
    def is_any(self) -> bool:
        """Whether every path matches."""
        if self.kind == REGEX:
            return self.text in {".*", "/.*", "^/.*$", "^.*$"}
        return self.kind == "prefix" and self.text in OF_ALL

    @property
    def is_tunnel(self) -> bool:
        """Whether only CONNECT requests match, which are tunnels and have no path."""
        return self.kind == "connect_matcher"

    def covers(self, other: "PathMatch") -> bool:
        """Return whether all paths that match `other` match this, too; False if that is not known."""
        if self.kind == "prefix" and other.kind in LITERAL and not (self.any_case or other.any_case):
            return self.text in OF_ALL or other.text.startswith(
                self.text
            )  # the usual case, of thousands of routes
        if self.is_any or self == other:
            return True
        if other.kind not in LITERAL or (other.any_case and not self.any_case):
            return False
        if self.kind == REGEX:
            # If A.* matches a text, then so does every text that begins with it.
            return regex_matches(self.text, other.text) and (other.kind == "path" or _is_open(self.text))
        text, its = (self.text.lower(), other.text.lower()) if self.any_case else (self.text, other.text)
        if self.kind == "path_separated_prefix":  # /v1 matches /v1 and /v1/..., but not /v1x
            return (its == text and other.kind != "prefix") or its.startswith(f"{text}/")
        if self.kind == "path":
            return its == text and other.kind == "path"
        return self.kind == "prefix" and its.startswith(text)

    def may_overlap(self, other: "PathMatch") -> bool:
        """Return whether a path may match both; True if that is not known."""
        if self.kind not in LITERAL or other.kind not in LITERAL:
            return True
        any_case = self.any_case or other.any_case
        one, two = PathMatch(self.kind, self.text, any_case), PathMatch(other.kind, other.text, any_case)
        return one.covers(two) or two.covers(one)


def _is_open(regex: str) -> bool:
    """Return whether an expression is of the form A.*; False also for some that are, such as a|b.*."""
    body = regex.removesuffix("$")
    return body.endswith(".*") and not body.endswith("\\.*") and "|" not in _GROUP.sub("", body)
