"""What a simulated fleet costs, counted as the cost model counts: in GPUs and money, with the spares of each
pool.
"""

from dataclasses import dataclass

from extproc.planning.model.setup import HOURS_PER_YEAR, Setup
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["Costs", "FleetCost", "costs_of"]


@dataclass(frozen=True, slots=True)
class FleetCost:
    """One fleet: instances of each pool with its spares, GPUs of an instance of each pool, all GPUs, GPU-hours and
    dollars a year.
    """

    instances: tuple[int, ...]
    gpus_per_instance: tuple[int, ...]
    gpus: int
    gpu_hours_per_year: int
    usd_per_year: float | None

    @property
    def shape(self) -> str:
        """The pools as instances times GPUs."""
        pools = zip(self.instances, self.gpus_per_instance, strict=True)
        return " + ".join(f"{count} x {gpus}" for count, gpus in pools)


@dataclass(frozen=True, slots=True)
class Costs:
    """GPUs of an instance, spare instances of each pool, and dollars of a GPU and hour (None: not known), for
    pools that have no instances of their own.
    """

    gpus_per_instance: int
    spare: int
    usd_per_gpu_hour: float | None

    def of(self, fleet: FleetEstimate) -> FleetCost:
        """Return what the fleet of the median seed costs."""
        instances = tuple(size + self.spare for size in fleet.typical.instances)
        own = fleet.design.setups
        each = tuple(setup.instance.gpus for setup in own) or (self.gpus_per_instance,) * len(instances)
        prices = tuple(setup.price_usd_h for setup in own) or (self.usd_per_gpu_hour,) * len(instances)
        gpus = [count * size for count, size in zip(instances, each, strict=True)]
        known = [price for price in prices if price is not None]
        hourly = sum(count * price for count, price in zip(gpus, known, strict=False))
        usd = HOURS_PER_YEAR * hourly if len(known) == len(gpus) else None
        return FleetCost(instances, each, sum(gpus), sum(gpus) * HOURS_PER_YEAR, usd)


def costs_of(setup: Setup) -> Costs:
    """Return the costs of a setup's instances."""
    return Costs(setup.instance.gpus, setup.spare, setup.price_usd_h)
