"""The size of one pool, bracketed between the largest known to fail and the smallest known to pass.

Steps grow until both bounds are known, then the bracket is halved: a good first guess costs few runs, a bad one
some more.
"""

from dataclasses import dataclass
from math import ceil

__all__ = ["TOLERANCE", "Bracket"]

TOLERANCE = 0.01  # of the size


@dataclass(slots=True)
class Bracket:
    """Bounds of one pool's size: the largest known to fail, the smallest known to pass. `size` is tried next, and
    `step` is the share by which sizes grow or shrink until both bounds are known. `doubtful` says that the largest
    size taken to fail might pass in a longer run.
    """

    start: int
    step: float
    tolerance: float = TOLERANCE
    fails: int = 0
    passes: int | None = None
    size: int = 0
    doubtful: bool = False

    def __post_init__(self) -> None:
        self.size = self.start

    @property
    def done(self) -> bool:
        """Whether the bounds are as close as the tolerance requires."""
        return self.passes is not None and self.passes - self.fails <= max(1, int(self.tolerance * self.passes))

    def judge(self, *, passed: bool, doubtful: bool = False) -> None:
        """Record the outcome at `size` and choose the next size.

        The other pools' sizes change the order in which the router learns, so a pool that passed may later fail at
        the same size; it then gets one more instance.
        """
        if not passed and self.size >= self.fails:
            self.doubtful = doubtful
        if self.done:
            self.size = self.passes = self.size if passed else self.size + 1
            return
        if passed:
            self.passes = self.size if self.passes is None else min(self.passes, self.size)
        else:
            self.fails = max(self.fails, self.size)
        if self.done:
            assert self.passes is not None
            self.size = self.passes
        elif self.passes is None:
            self.size = max(self.size + 1, ceil(self.size * (1 + self.step)))
        elif self.fails == 0:
            self.size = max(1, min(self.size - 1, int(self.size * (1 - self.step))))
        else:
            self.size = (self.passes + self.fails) // 2
        self.step = min(2 * self.step, 0.8)
