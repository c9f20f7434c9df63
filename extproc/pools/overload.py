"""Which share of a pool's requests goes elsewhere, from what its servers say and what was sent to them since.

The idea. A pool is under pressure by the fuller of two gauges: requests that wait, per server, over what may wait,
and KV cache in use over what may be in use. Pressure 1 is the limit. The share that spills is integrated: while
pressure is above 1 it rises, the faster the higher it is; it falls only below a lower limit (hysteresis), and slower
than it rises. So a pool gives up just as much as it takes to stay at its limit, and the other pool is never handed
everything at once. Between two scrapes the router's own requests are the freshest news: where something waits, each
counts as one more that does, until the servers have been asked again.

Prior art: the dispatch of the paper (algorithm 1, steps 4 and 5) spills everything above a threshold, which moves
the whole stream back and forth between two pools with the delay of the scrape. Integral control with a dead band is
the textbook remedy (Hellerstein et al., Feedback Control of Computing Systems, 2004). Rejected: the share that
equalises both queues (needs the service rates of both pools, which change with the lengths of what is spilled).
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from extproc.pools.reports import LoadReport

__all__ = ["Pressure", "SpillSettings", "Spilling", "pressure_of"]

Share = Annotated[float, Meta(gt=0, le=1)]


@dataclass(frozen=True, slots=True)
class SpillSettings:
    """When a pool is overloaded: requests waiting for each server, and the share of its KV cache in use.

    Spilling ends below `release` times the limits. In `ramp_s` seconds at twice the limit all is spilled.
    """

    enabled: bool = False
    waiting_per_endpoint: Annotated[float, Meta(gt=0)] = 8.0
    kv_usage: Share = 0.95
    release: Share = 0.5
    ramp_s: Annotated[float, Meta(gt=0)] = 4.0


@dataclass(frozen=True, slots=True)
class Pressure:
    """How full a pool is, 1 at its limits."""

    waiting: float
    kv: float

    @property
    def most(self) -> float:
        """The fuller of the two."""
        return max(self.waiting, self.kv)


def pressure_of(loads: tuple[LoadReport, ...], sent: int, settings: SpillSettings) -> Pressure:
    """Return the pressure on the servers that reported; `sent` requests went there since they did."""
    if not loads:
        return Pressure(0.0, 0.0)
    waiting = (sum(load.waiting for load in loads) + sent) / len(loads)
    # What was sent is on its way into free places before it waits: it counts only where something waits already.
    if not any(load.waiting for load in loads):
        waiting = 0.0
    kv = sum(load.kv_usage for load in loads) / len(loads)
    return Pressure(waiting / settings.waiting_per_endpoint, kv / settings.kv_usage)


class Spilling:
    """The share of one pool's requests that goes elsewhere, from 0 to 1."""

    def __init__(self, settings: SpillSettings) -> None:
        self._settings = settings
        self.share = 0.0

    def observe(self, pressure: Pressure, elapsed_s: float) -> float:
        """Take in the pressure of the last `elapsed_s` seconds; return the share from now on."""
        step = elapsed_s / self._settings.ramp_s
        if pressure.most > 1:
            self.share = min(1.0, self.share + step * min(pressure.most - 1, 1.0))
        elif pressure.most < self._settings.release:
            self.share = max(0.0, self.share - step / 2)
        return self.share
