"""The parts of a trap: how it is found, why it matters, the fix, and the test that demonstrates it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from extproc.gateways.model import Gateway
from extproc.gateways.parsing.sources import Place
from extproc.gateways.router import Router

__all__ = ["Find", "Hit", "Severity", "Trap"]


class Severity(StrEnum):
    """How much harm a trap does; names are SARIF's."""

    ERROR = "error"
    """Requests are corrupted, fail, or cannot be routed as they should be."""
    WARNING = "warning"
    """It does harm under load or at a limit, or wastes resources."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a trap was found, and what is wrong there."""

    place: Place
    what: str


Find = Callable[[Gateway, Router], Iterable[Hit]]


@dataclass(frozen=True, slots=True)
class Trap:
    """One trap. `why` says what happens and `fix` what to write instead; `shown_by` is file::test."""

    name: str
    severity: Severity
    why: str
    fix: str
    find: Find
    shown_by: str
