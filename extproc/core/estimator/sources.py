"""Whom a response comes from, and what holds for most sources: one client with odd prompts is not everybody.

When most responses of a model surprise, its tokenizer may have changed (rivals.py). But ten odd prompts in a row
of one client look the same. So the last response of each of the last few sources is kept too, and what is decided
has to hold for most of them. A source is a tenant, or where none is told the first bytes of the prompt: clients
begin with their system prompt. One that has not been heard of for MEMORY responses does not count; where there is
only one, it decides. This is of one process, and not shared.
"""

from collections import OrderedDict

__all__ = ["HEAD_BYTES", "Sources"]

HEAD_BYTES = 128  # what tells apart whom a request is from, where no tenant is told
SOURCES = 10
MEMORY = 200  # responses


class Sources:
    """Of which share of the sources something held at their last response."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._responses = 0

    def observe(self, source: int, *, held: bool) -> None:
        """Take in one response."""
        self._responses += 1
        self._last[source] = (self._responses, held)
        self._last.move_to_end(source)
        if len(self._last) > SOURCES:
            self._last.popitem(last=False)

    @property
    def share(self) -> float:
        """The share of the sources heard of lately for whose last response it held."""
        lately = self._lately
        return sum(lately) / max(len(lately), 1)

    @property
    def count(self) -> int:
        """How many were heard of lately, of those that are kept."""
        return len(self._lately)

    @property
    def _lately(self) -> list[bool]:
        return [held for at, held in self._last.values() if at > self._responses - MEMORY]
