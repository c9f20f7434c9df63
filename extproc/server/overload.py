"""How long events wait inside the process before they are handled, and what is shed if that is too long.

The loop's delay is measured with marks: a mark is an operation that completes at once and is handled after
everything that was waiting before it. (The time until a stream's first message says less: distant gateways send it
late.) When we come to a request's call, it has waited for about as long as the last mark; its deadline counts from
the beginning of that wait.

Shedding depends on the delay and not on the number of requests, because a held request that waits for its client
costs nothing. As in CoDel (Nichols and Jacobson, "Controlling Queue Delay", 2012), a delay above the target is
tolerated for an interval, so that a burst is worked off and only a standing queue is shed. A shed request gets the
default pool at its headers, for a fraction of the work.

Rejected: newest first. It was built twice: requests that came while the loop lagged were put aside, read or
unread; the newest was begun when there was nothing else to do, and the oldest were let go at their deadlines. A
decision then took 690 to 850 us of CPU instead of 420 to 450 us in order of arrival (128 in flight, at five times
the process's capacity): everything that waits must be taken out of the core before the newest is known, each one
put aside costs a call, and polls that find nothing are system calls. A low limit on concurrent requests at the
gateway does more for less.
"""

from collections import deque
from typing import Final

__all__ = ["Overload"]

TARGET_S: Final = 0.005
INTERVAL_S: Final = 0.1
# A delay as long as this is never just a burst.
LIMIT_S: Final = 0.05
MARK_EVERY_S: Final = 0.005
# A mark that has not returned after this time is lost, as for lack of memory, and is replaced.
LOST_S: Final = 1.0
# Readiness is judged over this many seconds, and only if there were this many requests.
WINDOW_S: Final = 10
ENOUGH_REQUESTS: Final = 100


class Overload:
    """The delay of one loop; all times are by time.monotonic()."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        self._marked_s: float | None = None
        self._next_mark_s = 0.0
        self._above_since_s: float | None = None
        self._outcomes: deque[list[int]] = deque(maxlen=WINDOW_S)

    def wants_mark(self, now_s: float) -> bool:
        """Return whether the caller is to set a mark now; its wait is measured from `now_s`."""
        due_s = self._next_mark_s if self._marked_s is None else self._marked_s + LOST_S
        if now_s < due_s:
            return False
        self._marked_s = now_s
        return True

    def on_turn(self, now_s: float) -> float:
        """Called when the mark's turn has come; return how long it waited."""
        if self._marked_s is None:  # an older mark, which took so long that it seemed lost
            return self.lag_s
        self.lag_s = now_s - self._marked_s
        self._marked_s, self._next_mark_s = None, now_s + MARK_EVERY_S
        if self.lag_s < TARGET_S:
            self._above_since_s = None
        elif self._above_since_s is None:
            self._above_since_s = now_s
        return self.lag_s

    def sheds(self, now_s: float) -> bool:
        """Return whether a new request is to be shed."""
        if self._marked_s is not None and now_s - self._marked_s >= LIMIT_S:
            return True
        if self._above_since_s is None:
            return False
        return self.lag_s >= LIMIT_S or now_s - self._above_since_s >= INTERVAL_S

    def count(self, *, in_time: bool, now_s: float) -> None:
        """Record that a request was decided in time, or was not because the loop lagged."""
        second = int(now_s)
        if not self._outcomes or self._outcomes[-1][0] != second:
            self._outcomes.append([second, 0, 0])
        self._outcomes[-1][1 if in_time else 2] += 1

    def mostly_late(self, now_s: float) -> bool:
        """Return whether most requests of the last `WINDOW_S` seconds could not be decided in time."""
        recent = [each for each in self._outcomes if now_s - each[0] <= WINDOW_S]
        late, all_of_them = sum(each[2] for each in recent), sum(each[1] + each[2] for each in recent)
        return all_of_them >= ENOUGH_REQUESTS and late * 2 > all_of_them
