"""The messages between main process and workers: a mutant to try, and its outcome."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import msgspec

__all__ = ["Outcome", "Trial", "Verdict"]


class Outcome(StrEnum):
    """The outcome of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"  # a test ran far longer than usual
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"  # not tried: known.toml says why no test could notice it


class _Line:
    """A message that is sent as one line of JSON."""

    __slots__ = ()

    @classmethod
    def read(cls, line: str) -> Self:
        """Return the message encoded in `line`."""
        return msgspec.json.decode(line, type=cls)

    def line(self) -> str:
        """Return the message as a line, including the line end."""
        return msgspec.json.encode(self).decode() + "\n"


@dataclass(frozen=True, slots=True)
class Trial(_Line):
    """A changed module, the tests to run, in order, and the seconds of CPU time that each may take.

    `live`: no changed line runs before the first test, so the change can be tried in a process that has imported
    everything.
    """

    module: str
    source: str
    seconds: dict[str, float]
    live: bool


@dataclass(frozen=True, slots=True)
class Verdict(_Line):
    """The outcome of a trial, and the test that ended it."""

    outcome: Outcome
    test: str = ""
