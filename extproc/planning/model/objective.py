"""Latency objectives of a fleet, by request length.

Users who send short requests notice if those are slow, however good the average over all lengths is; so each
length class can have its own objective: `<=8192: ttft 2s, tpot 80ms; else: ttft 30s`. A class holds the requests
whose prompt plus output is within its limit and above the previous class's. Without classes all requests share one
objective, and latencies are still reported by length.

A percentile is met if at most 1 % of the class's requests are late. It is counted, not interpolated, so that the
reported percentile and the verdict cannot disagree.
"""

import re
from dataclasses import dataclass, field
from math import inf

import numpy as np
import numpy.typing as npt

from extproc.core.errors import ConfigurationError
from extproc.planning.workload.lengths import MAX_TOKENS

__all__ = ["FEWEST_JUDGED", "LATE", "LengthClass", "Objective", "parse_objective"]

LATE = 0.01  # share of a class that may be late: the objective is on the 99th percentile
FEWEST_JUDGED = 200  # requests of a class in a run: with fewer the 99th percentile is not meaningful
SHOWN_LIMITS = (2_048, 8_192, 32_768)  # the classes of the latency tables if the objective names none
_UNITS = {"s": 1.0, "ms": 1e-3}
_TERM = re.compile(r"(ttft|tpot)\s+([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|s)")
_HEAD = re.compile(r"(?:<=\s*([0-9][0-9_,]*)|(else))")


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Requests of at most `limit` tokens (inf: all above the previous class), and their objective.

    `late` is the share of them that may be late. It is larger for a pool that serves only part of a class.
    """

    limit: float
    ttft_s: float
    tpot_s: float
    late: float = LATE

    @property
    def name(self) -> str:
        """The class's name in tables."""
        return "longer" if self.limit == inf else f"<= {self.limit:,.0f}"

    @property
    def requests(self) -> str:
        """The name of the class's requests in sentences."""
        return "longer requests" if self.limit == inf else f"requests {self.name} tokens"


@dataclass(frozen=True, slots=True)
class Objective:
    """The objective: 99th percentiles in seconds, and the share of requests answered in full.

    `shorter` holds length classes in ascending order; `ttft_s`, `tpot_s` and `late` (the share of requests that
    may be late) apply to requests above them.
    """

    ttft_s: float = 2.0
    tpot_s: float = 0.08
    success: float = 0.999
    shorter: tuple[LengthClass, ...] = field(default=())
    late: float = LATE

    def __post_init__(self) -> None:
        for each in self.classes:
            if not (0 < each.ttft_s < inf and 0 < each.tpot_s < inf and 0 <= self.success <= 1):
                raise ConfigurationError(
                    f"objective TTFT {each.ttft_s:g} s, TPOT {each.tpot_s * 1e3:g} ms, success {self.success:g}: "
                    "times must be positive and finite, and success between 0 and 1"
                )
        limits = [each.limit for each in self.shorter]
        if limits != sorted(set(limits)) or inf in limits:
            raise ConfigurationError("objective: classes must be in ascending order of length, each length once")

    @property
    def classes(self) -> tuple[LengthClass, ...]:
        """All classes with an objective, in ascending order of length."""
        return (*self.shorter, LengthClass(inf, self.ttft_s, self.tpot_s, self.late))

    @property
    def shown(self) -> tuple[LengthClass, ...]:
        """The classes of latency tables: those of the objective, or usual lengths if all requests share one."""
        if self.shorter:
            return self.classes
        return tuple(LengthClass(limit, self.ttft_s, self.tpot_s) for limit in (*SHOWN_LIMITS, inf))

    @property
    def tightest_tpot_s(self) -> float:
        """The smallest TPOT of any class."""
        return min(each.tpot_s for each in self.classes)

    def of(self, total: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the index of each request's class; `total` holds prompt plus output tokens."""
        return np.searchsorted([each.limit for each in self.shorter], total).astype(np.int64)

    def count(self, total: npt.NDArray[np.int64]) -> list[int]:
        """Return the number of requests in each class."""
        index = self.of(total)
        return [int((index == place).sum()) for place in range(len(self.classes))]

    def __str__(self) -> str:
        """Return the objective in the command line's syntax."""
        return "; ".join(
            f"{'else' if c.limit == inf else f'<={c.limit:.0f}'}: ttft {c.ttft_s:g}s, tpot {c.tpot_s * 1e3:g}ms"
            for c in self.classes
        )


def parse_objective(text: str, default: Objective) -> Objective:
    """Parse `<=8192: ttft 2s, tpot 80ms; else: ttft 30s`; times that a class does not name are the default's.

    Raises ConfigurationError that names the invalid part.
    """
    classes: list[LengthClass] = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        head, colon, terms = part.partition(":")
        match = _HEAD.fullmatch(head.strip())
        if match is None or not colon:
            raise ConfigurationError(
                f"--objective {part!r}: a class begins with '<=TOKENS:' or 'else:', as in "
                "'<=8192: ttft 2s, tpot 80ms; else: ttft 30s'"
            )
        limit = inf if match[2] else float(match[1].replace(",", "").replace("_", ""))
        if match[2] is None and not 1 <= limit <= MAX_TOKENS:
            raise ConfigurationError(f"--objective {part!r}: a class holds up to 1 to {MAX_TOKENS:,} tokens")
        classes.append(_class(limit, terms, default))
    if not classes or classes[-1].limit != inf:
        raise ConfigurationError(f"--objective {text!r}: the last class must be 'else:'")
    last = classes.pop()
    return Objective(last.ttft_s, last.tpot_s, default.success, tuple(classes))


def _class(limit: float, terms: str, default: Objective) -> LengthClass:
    times = {"ttft": default.ttft_s, "tpot": default.tpot_s}
    named: set[str] = set()
    for term in filter(None, (piece.strip() for piece in terms.split(","))):
        match = _TERM.fullmatch(term)
        if match is None:
            raise ConfigurationError(f"--objective {term!r}: 'ttft' or 'tpot' and a time in s or ms is needed")
        if match[1] in named:
            raise ConfigurationError(f"--objective {terms.strip()!r}: {match[1]} is given twice")
        named.add(match[1])
        times[match[1]] = float(match[2]) * _UNITS[match[3]]
    return LengthClass(limit, times["ttft"], times["tpot"])
