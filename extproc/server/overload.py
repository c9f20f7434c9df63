"""How long things wait inside the process before we come to them, and what is given up when that is too long.

The loop's own delay is measured by marks: an operation that is done at once, whose turn comes when all that was
waiting before it was handled. (How long a stream's first message takes says less: gateways far away send it late.)
A request has waited about as long as the last mark when we come to its call: that is when its deadline begins.

Shedding goes by delay and not by the number of requests, since a held request that waits for its client costs
nothing. As in CoDel (Nichols and Jacobson, "Controlling Queue Delay", 2012) a delay above the target is borne for
an interval, so that a burst is worked off and only a standing queue is shed; what is shed is given the default
pool at its headers, for a fraction of the work.

Rejected: newest first. It was built twice: what comes while the loop lags was put aside, read or unread, the
newest begun when nothing else was to do, and the oldest let go at their deadline. A decision then took 690 to 850
us of CPU where it takes 420 to 450 in the order of arrival (128 under way, at five times what the process holds):
all that waits has to be taken out of the core before the newest can be known, each one put aside costs a call, and
polls that find nothing are system calls. Few places at the gateway do more for less.
"""

from collections import deque
from typing import Final

__all__ = ["Overload"]

TARGET_S: Final = 0.005
INTERVAL_S: Final = 0.1
# So late that it is never a burst.
LIMIT_S: Final = 0.05
MARK_EVERY_S: Final = 0.005
# Readiness: over so many seconds, and from so many requests on.
WINDOW_S: Final = 10
ENOUGH_REQUESTS: Final = 100


class Overload:
    """The delay of one loop; all times are time.monotonic()'s."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        self._marked_s: float | None = None
        self._next_mark_s = 0.0
        self._above_since_s: float | None = None
        self._outcomes: deque[list[int]] = deque(maxlen=WINDOW_S)

    def wants_mark(self, now_s: float) -> bool:
        """Say whether a mark is to be set now."""
        if self._marked_s is not None or now_s < self._next_mark_s:
            return False
        self._marked_s = now_s
        return True

    def on_turn(self, now_s: float) -> float:
        """Called when the mark's turn has come; return how long it has waited."""
        assert self._marked_s is not None
        self.lag_s = now_s - self._marked_s
        self._marked_s, self._next_mark_s = None, now_s + MARK_EVERY_S
        if self.lag_s < TARGET_S:
            self._above_since_s = None
        elif self._above_since_s is None:
            self._above_since_s = now_s
        return self.lag_s

    def sheds(self, now_s: float) -> bool:
        """Say whether a new request is to be given up."""
        if self._marked_s is not None and now_s - self._marked_s >= LIMIT_S:
            return True
        if self._above_since_s is None:
            return False
        return self.lag_s >= LIMIT_S or now_s - self._above_since_s >= INTERVAL_S

    def count(self, *, in_time: bool, now_s: float) -> None:
        """Record that a request could be decided in time, or not for want of our own time."""
        second = int(now_s)
        if not self._outcomes or self._outcomes[-1][0] != second:
            self._outcomes.append([second, 0, 0])
        self._outcomes[-1][1 if in_time else 2] += 1

    def mostly_late(self, now_s: float) -> bool:
        """Say whether most requests of the last seconds could not be decided in time."""
        recent = [each for each in self._outcomes if now_s - each[0] <= WINDOW_S]
        late, all_of_them = sum(each[2] for each in recent), sum(each[1] + each[2] for each in recent)
        return all_of_them >= ENOUGH_REQUESTS and late * 2 > all_of_them
