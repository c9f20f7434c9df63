"""Spillover in the simulated fleet: the router's own policy, which polls the load of the servers every second."""

from collections.abc import Sequence
from typing import Final

from extproc.core.placing.fleet import Busy, Fleet
from extproc.core.placing.policy import Pools
from extproc.core.placing.spill import Spilling, Spillover, SpillSettings

__all__ = ["SPILLING", "SimulatedSpill"]

SPILLING: Final = SpillSettings(enabled=True)
EVERY_S: Final = 1.0
SALT: Final = b"simulated"


class SimulatedSpill:
    """The spillover policy during one run, and its view of the fleet."""

    def __init__(self, pools: Pools, settings: SpillSettings = SPILLING) -> None:
        self.spillover = Spillover(settings, SALT)
        self.fleet = pools.fleet
        self._spillings = {pool.name: Spilling(settings) for pool in pools.ascending}
        self._polled_at_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Return whether the servers are to be polled now."""
        return now_s >= self._polled_at_s + EVERY_S

    def observe(self, now_s: float, busy: Sequence[Busy]) -> None:
        """Record how busy each pool is, smallest first."""
        elapsed_s, self._polled_at_s = now_s - self._polled_at_s, now_s
        loads = {
            name: spilling.observe(each, self.spillover.placed(name), elapsed_s)
            for (name, spilling), each in zip(self._spillings.items(), busy, strict=True)
        }
        self.fleet = Fleet(self.fleet.serving, loads)
