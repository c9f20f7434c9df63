"""How long may be worked on what is not urgent: a share of the time, which does not pile up."""

__all__ = ["TimeShare"]


class TimeShare:
    """A share of the time, in seconds of work: what is left of it, and when there is some again.

    No more than `burst_s` is left, however long nothing was done.
    """

    def __init__(self, burst_s: float) -> None:
        self._burst_s = self._left_s = burst_s
        self._at_s: float | None = None

    def left_s(self, now_s: float, share: float) -> float:
        """Return how long may be worked now."""
        if self._at_s is not None:
            self._left_s = min(self._left_s + (now_s - self._at_s) * share, self._burst_s)
        self._at_s = now_s
        return self._left_s

    def spend(self, seconds: float) -> None:
        """Take away what was worked."""
        self._left_s -= seconds

    def wait_s(self, share: float, needed_s: float) -> float:
        """Return how long it takes from the last look until so much is left."""
        return max(needed_s - self._left_s, 0.0) / share
