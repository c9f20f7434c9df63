"""Header conditions of routes."""

from collections.abc import Mapping
from dataclasses import dataclass

from extproc.gateways.matching.strings import regex_matches

__all__ = ["HeaderMatch"]


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """A route's condition on one request header."""

    name: str
    exact: str | None = None
    present: bool | None = None
    regex: str | None = None
    numbers: tuple[int, int] | None = None
    """A half-open range, as in Envoy: the start is included, the end is not."""
    inverted: bool = False
    empty_if_absent: bool = False
    """A request without the header counts as one with an empty value."""

    @property
    def matches_absent(self) -> bool:
        """Whether a request without the header matches: only conditions on its presence say so, as in Envoy.

        An inverted condition on a value does not, unless an absent header counts as empty.
        """
        on_value = self.exact is not None or self.regex is not None or self.numbers is not None
        if on_value:
            return self.empty_if_absent and self.matches("")
        return (self.present is False) != self.inverted

    def matches(self, value: str) -> bool:
        """Return whether a header with this value matches."""
        if self.exact is not None:
            found = self.exact == value
        elif self.regex is not None:
            found = regex_matches(self.regex, value)
        elif self.numbers is not None:
            found = value.isdecimal() and self.numbers[0] <= int(value) < self.numbers[1]
        else:
            found = self.present is not False
        return found != self.inverted

    def matches_known(self, values: Mapping[str, str]) -> bool:
        """Return whether a request with these headers matches; False if that depends on others."""
        return self.name in values and self.matches(values[self.name])
