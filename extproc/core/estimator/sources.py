"""Sources of responses, and whether something holds for most of them: one odd client is not everybody.

When most responses of a model surprise, its tokenizer may have changed (rivals.py). But ten odd prompts in a row
from one client look the same. So the last response of each of the last few sources is also recorded, and a
condition has to hold for most sources. A source is a tenant or, if no tenant is given, the first bytes of the
prompt: clients begin with their system prompt. A source without a response among the last MEMORY does not count;
if there is only one source, it decides. This belongs to one process and is not shared.
"""

from collections import OrderedDict

__all__ = ["MOST_NUMBER", "Sources", "source_of"]

HEAD_BYTES = 128  # of the prompt: they identify the source if no tenant is given
MOST_NUMBER = 0xFFFFFFFF  # what the access log has room for
SOURCES = 10
MEMORY = 200  # responses


def source_of(tenant: str, text: bytes) -> int:
    """Return the number of a request's source. It is the same within one process only."""
    return hash(("tenant", tenant) if tenant else text[:HEAD_BYTES]) & MOST_NUMBER


class Sources:
    """For which share of the sources something held at their last response."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._responses = 0

    def observe(self, source: int, *, held: bool) -> None:
        """Take in one response."""
        self._responses += 1
        last = self._last
        last[source] = (self._responses, held)
        last.move_to_end(source)
        if len(last) > SOURCES:
            last.popitem(last=False)

    @property
    def share(self) -> float:
        """The share of the recently seen sources for whose last response it held."""
        lately = self._lately
        return sum(lately) / max(len(lately), 1)

    @property
    def count(self) -> int:
        """The number of recently seen sources, of those that are kept."""
        return len(self._lately)

    @property
    def _lately(self) -> list[bool]:
        return [held for at, held in self._last.values() if at > self._responses - MEMORY]
