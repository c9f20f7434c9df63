"""A time budget for work that is not urgent: a share of the elapsed time, with a bounded backlog."""

__all__ = ["TimeShare"]


class TimeShare:
    """A token bucket of working time, in seconds: how much is left, and when there will be more.

    It never holds more than `burst_s`, however long it was idle.
    """

    def __init__(self, burst_s: float) -> None:
        self._burst_s = self._left_s = burst_s
        self._at_s: float | None = None

    def left_s(self, now_s: float, share: float) -> float:
        """Return how many seconds of work are allowed now; `share` is the refill rate."""
        if self._at_s is not None:
            self._left_s = min(self._left_s + (now_s - self._at_s) * share, self._burst_s)
        self._at_s = now_s
        return self._left_s

    def spend(self, seconds: float) -> None:
        """Deduct time that was worked."""
        self._left_s -= seconds

    def wait_s(self, share: float, needed_s: float) -> float:
        """Return the time from the last call of `left_s` until `needed_s` are left, in seconds."""
        return max(needed_s - self._left_s, 0.0) / share
