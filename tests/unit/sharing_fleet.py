"""Replicas that exchange what they learn, and lessons for them."""

import numpy as np

from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import Estimate, Estimator, LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.state_tables import state_of
from extproc.core.estimator.tables import Tables, settled
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts

SETTINGS = EstimatorSettings()
TERMS = Terms.of(SETTINGS)


class Fleet:
    """Replicas that publish and read each other's knowledge, without a store in between."""

    def __init__(self, replicas: int, kind: str = "byteclass") -> None:
        self.settings = EstimatorSettings(kind=kind)  # type: ignore[arg-type]
        self.terms = Terms.of(self.settings)
        self.published_tables: dict[int, Tables] = {}
        self.estimators: list[Estimator] = []
        self.shares: list[Share] = []
        self.read: dict[tuple[int, int], Tables] = {}
        for _ in range(replicas):
            self.join()

    def join(self) -> Estimator:
        """Add a replica that has learned nothing."""
        self.estimators.append(make_estimator(self.settings))
        self.shares.append(Share(self.terms))
        return self.estimators[-1]

    @property
    def published(self) -> dict[int, LearnedState]:
        """The last published state of each replica, as rows."""
        return {replica: state_of(tables) for replica, tables in self.published_tables.items()}

    def exchange(self, *replicas: int) -> None:
        """Let these replicas, or all of them, publish and read once."""
        for i in replicas or range(len(self.estimators)):
            peers = [
                settled(tables) if self.read.get((i, j)) is tables else tables
                for j, tables in self.published_tables.items()
                if j != i
            ]
            self.read |= {(i, j): tables for j, tables in self.published_tables.items()}
            exchanged = self.shares[i].exchange(self.estimators[i].state(), peers)
            self.published_tables[i] = exchanged.own
            for bite in exchanged.change.bites():
                self.shares[i].skipped(self.estimators[i].shift(bite))


def lesson(rng: np.random.Generator, estimators: list[Estimator], ratio: float = 4.0, model: str = "m") -> None:
    """Teach the same response to several estimators."""
    text = (WORDS * 42)[rng.integers(0, 50) :][: int(rng.integers(200, 4_000))]
    usage = Usage(max(1, round(len(text) / ratio * rng.normal(1, 0.03))), int(rng.integers(1, 900)))
    tenant = f"tenant {rng.integers(5)}"
    for estimator in estimators:
        estimator.observe(estimator.estimate(facts(text, model=model), tenant), usage)


def guess(estimator: Estimator) -> Estimate:
    """Return the estimate of a fixed request."""
    return estimator.estimate(facts((WORDS * 42)[:1_500]), "tenant 1")
