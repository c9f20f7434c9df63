"""What one trap is made of: how it is found, why it matters, the fix, and the test that shows it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from extproc.gateways.model import Gateway
from extproc.gateways.router import Router
from extproc.gateways.sources import Place

__all__ = ["Find", "Hit", "Severity", "Trap"]


class Severity(StrEnum):
    """How it bites; names are SARIF's."""

    ERROR = "error"
    """Requests are corrupted, fail, or cannot be routed as they should be."""
    WARNING = "warning"
    """It bites under load, at a limit, or costs more than it has to."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a trap was found, and with what in it."""

    place: Place
    what: str


Find = Callable[[Gateway, Router], Iterable[Hit]]


@dataclass(frozen=True, slots=True)
class Trap:
    """One trap. `why` says what happens, and `fix` what to write instead; `shown_by` is file::test."""

    name: str
    severity: Severity
    why: str
    fix: str
    find: Find
    shown_by: str
