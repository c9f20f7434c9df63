"""A replica that shares through a store, one step of a router's background task at a time."""

from collections.abc import Callable

import numpy as np
import pytest

from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import Estimate
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.terms import Terms
from extproc.core.usage import Usage
from extproc.state.settings import StoreSettings
from extproc.state.sharer import Sharer
from tests.unit.byteclass_lessons import WORDS, facts
from tests.unit.redis_server import RedisServer

SETTINGS = EstimatorSettings()
TERMS = Terms.of(SETTINGS)


class Replica:
    """An estimator that shares, and performs the steps of a router's background task one at a time."""

    def __init__(self, url: str, seed: int = 0, **settings: object) -> None:
        self.done: list[bool] = []
        self.replicas = 0
        self.estimator = ByteClassEstimator(SETTINGS)
        # Each exchange runs in a new event loop, so it makes a new connection.
        self.settings = StoreSettings(url, **{"timeout_s": 30.0, "every_s": 60.0, **settings})  # type: ignore[arg-type]
        self.sharer = Sharer(self.settings, TERMS, lambda: self.estimator, self._ask, self)
        self._rng = np.random.default_rng(seed)

    async def _ask(self, function: Callable[[], object]) -> object:
        return function()

    def state_saved(self, *, done: bool) -> None:
        """Ignore: nothing is saved here."""

    def state_exchanged(self, *, done: bool, replicas: int) -> None:
        """Record the outcome of an exchange."""
        self.done.append(done)
        self.replicas = replicas

    def learn(self, count: int, model: str = "m") -> None:
        """Learn from this many responses."""
        for _ in range(count):
            text = (WORDS * 42)[self._rng.integers(0, 50) :][: int(self._rng.integers(200, 4_000))]
            usage = Usage(max(1, round(len(text) / 4 * self._rng.normal(1, 0.03))), 50)
            self.estimator.observe(self.estimator.estimate(facts(text, model=model), "tenant"), usage)

    def exchange(self, times: int = 1) -> None:
        """Exchange this many times."""
        for _ in range(times):
            self.sharer.first()

    @property
    def responses(self) -> int:
        """The number of responses of model m that it has learned from, directly or through others."""
        return sum(row.observations for row in self.estimator.state().models if row.model == "m")

    def guess(self) -> Estimate:
        """Return the estimate of a fixed request."""
        return self.estimator.estimate(facts((WORDS * 42)[:1_500]), "tenant")


def cut_off(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> tuple[Replica, Replica]:
    """Return a replica that has learned from 80 responses and was taken for dead, and the one that folded it."""
    away, other = Replica(server.url, 1), Replica(server.url, 2)
    away.learn(80)
    away.exchange()
    monkeypatch.setattr("extproc.state.sharer.DEAD_AFTER", 0)
    other.exchange(2)
    monkeypatch.undo()
    return away, other
