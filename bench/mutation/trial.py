"""One mutant to be tried, and what can come of it: what main process and workers tell each other."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Outcome", "Trial"]


class Outcome(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"  # it ran far longer than the tests do
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"  # not tried: known.toml says why no test could see it


@dataclass(frozen=True, slots=True)
class Trial:
    """A changed module, the tests to run, in their order, and the seconds of processor time they may take."""

    module: str
    source: str
    tests: list[str]
    cpu_s: float
