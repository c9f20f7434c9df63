"""Who sends what is beyond belief: one client with odd prompts, or everybody.

When most responses of a model are beyond belief, it is the model that is wrong, and it starts anew
(served_model.py). But ten odd prompts in a row of one client look the same, and would erase what all others have
taught. So the last response of each of the last few sources is kept too, and most of them have to be beyond belief
as well. A source is a tenant, or where none is told the first bytes of the prompt: clients begin with their system
prompt. One that has not been heard of for MEMORY responses does not count; where there is only one, it decides.

This is of one process, and not shared. Not built: a challenger that learns beside the old model and takes over
when it predicts better, at the price of a second set of sums for each model.
"""

from collections import OrderedDict

__all__ = ["HEAD_BYTES", "Sources"]

HEAD_BYTES = 128
SOURCES = 10
MEMORY = 200  # responses


class Sources:
    """Whether the last response of each source was beyond belief."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._responses = 0

    def observe(self, source: int, *, clipped: bool) -> None:
        """Take in one response."""
        self._responses += 1
        self._last[source] = (self._responses, clipped)
        self._last.move_to_end(source)
        if len(self._last) > SOURCES:
            self._last.popitem(last=False)

    @property
    def clipped_share(self) -> float:
        """The share of the sources heard of lately whose last response was beyond belief."""
        lately = [clipped for at, clipped in self._last.values() if at > self._responses - MEMORY]
        return sum(lately) / max(len(lately), 1)
