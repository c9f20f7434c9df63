"""Path conditions of routes."""

from dataclasses import dataclass

__all__ = ["PathMatch"]

LITERAL = ("prefix", "path", "path_separated_prefix")


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A route's condition on the path: `kind` is that of Envoy's path_specifier, `text` its value."""

    kind: str
    text: str

    @property
    def is_any(self) -> bool:
        """Whether every path matches."""
        if self.kind == "safe_regex":
            return self.text in {".*", "/.*", "^/.*$", "^.*$"}
        return self.kind == "prefix" and self.text in {"", "/"}

    def covers(self, other: "PathMatch") -> bool:
        """Return whether all paths that match `other` match this, too; False if that is not known."""
        if self.is_any or self == other:
            return True
        if other.kind not in LITERAL:
            return False
        if self.kind == "path_separated_prefix":  # /v1 matches /v1 and /v1/..., but not /v1x
            same = other.text == self.text and other.kind != "prefix"
            return same or other.text.startswith(f"{self.text}/")
        return self.kind == "prefix" and other.text.startswith(self.text)

    def may_overlap(self, other: "PathMatch") -> bool:
        """Return whether a path may match both; True if that is not known."""
        known = self.kind in LITERAL and other.kind in LITERAL
        return not known or self.covers(other) or other.covers(self)
