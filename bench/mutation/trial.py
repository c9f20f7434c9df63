"""One mutant to be tried, and what can come of it: what main process and workers tell each other."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import msgspec

__all__ = ["Outcome", "Trial", "Verdict"]


class Outcome(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"  # a test ran far longer than it does
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"  # not tried: known.toml says why no test could see it


class _Line:
    """Travels as one line of JSON."""

    __slots__ = ()

    @classmethod
    def read(cls, line: str) -> Self:
        """Return what `line` was made of."""
        return msgspec.json.decode(line, type=cls)

    def line(self) -> str:
        """Return it as a line, with its end."""
        return msgspec.json.encode(self).decode() + "\n"


@dataclass(frozen=True, slots=True)
class Trial(_Line):
    """A changed module, the tests to run, in their order, and the seconds of processor time each may take.

    `live` tells that no line of the change runs before the first test, so that it can be put into a process which
    has imported everything.
    """

    module: str
    source: str
    seconds: dict[str, float]
    live: bool


@dataclass(frozen=True, slots=True)
class Verdict(_Line):
    """What came of a trial, and the test that ended it."""

    outcome: Outcome
    test: str = ""
