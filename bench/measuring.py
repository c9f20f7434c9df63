"""Common parts of all measurements: their length, their result type, and the formatting of series of values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from bench.stack import Server, Stack

__all__ = ["Measurement", "Plan", "Table", "cpu_us_per_request", "pairs", "spread"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The length of a measurement: rounds, in which each thing compared runs once, and requests per run."""

    rounds: int
    requests: int


@dataclass(frozen=True, slots=True)
class Table:
    """One measurement's result. `notes` describe what was done and how to read the table."""

    title: str
    notes: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Measurement(Protocol):
    """A module of this folder that measures one thing."""

    def measure(self, stack: Stack, plan: Plan) -> list[Table]:
        """Start the needed processes, measure, and return the tables."""
        ...


def cpu_us_per_request(server: Server, requests: int, load: Callable[[], object]) -> float:
    """Run a load and return the CPU time that a server took during it, in us per request."""
    before = server.cpu_us()
    load()
    return (server.cpu_us() - before) / requests


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Format the median, with the smallest and largest value in parentheses."""
    low, mid, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{mid} ({low}..{high})"


def pairs(ours: Sequence[float], other: Sequence[float], digits: int = 2) -> str:
    """Format the ratios of values of the same round, as `spread` does."""
    return spread([a / b for a, b in zip(ours, other, strict=True)], digits)
