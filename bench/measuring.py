"""What all measurements share: how long they run, what they return, and how a series of values is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from bench.stack import Server, Stack

__all__ = ["Measurement", "Plan", "Table", "cpu_us_per_request", "pairs", "spread"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: rounds, in each of which everything that is compared runs once, and requests a run."""

    rounds: int
    requests: int


@dataclass(frozen=True, slots=True)
class Table:
    """One measurement's result. `notes` say what was done and how to read it."""

    title: str
    notes: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Measurement(Protocol):
    """A module of this folder that measures one thing."""

    def measure(self, stack: Stack, plan: Plan) -> list[Table]:
        """Start what is needed, measure, and return the tables."""
        ...


def cpu_us_per_request(server: Server, requests: int, load: Callable[[], object]) -> float:
    """Return the CPU time of a server while a load runs, in us per request."""
    before = server.cpu_us()
    load()
    return (server.cpu_us() - before) / requests


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median, and the smallest and largest value beside it."""
    low, mid, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{mid} ({low}..{high})"


def pairs(ours: Sequence[float], other: Sequence[float], digits: int = 2) -> str:
    """Return the ratios of the values of the same rounds, as `spread` does."""
    return spread([a / b for a, b in zip(ours, other, strict=True)], digits)
