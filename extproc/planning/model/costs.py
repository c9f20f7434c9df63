"""What a simulated fleet costs, counted as the cost model counts: with the spares of each pool."""

from dataclasses import dataclass

from extproc.planning.model.setup import HOURS_PER_YEAR, Setup
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["Costs", "FleetCost", "costs_of"]


@dataclass(frozen=True, slots=True)
class FleetCost:
    """One fleet: instances of each pool with its spares, their GPUs, GPU-hours and dollars a year."""

    instances: tuple[int, ...]
    gpus: int
    gpu_hours_per_year: int
    usd_per_year: float | None


@dataclass(frozen=True, slots=True)
class Costs:
    """GPUs of an instance, spare instances of each pool, and dollars of a GPU and hour (None: not known)."""

    gpus_per_instance: int
    spare: int
    usd_per_gpu_hour: float | None

    def of(self, fleet: FleetEstimate) -> FleetCost:
        """Return what the fleet of the median seed costs."""
        instances = tuple(size + self.spare for size in fleet.typical.instances)
        gpus = sum(instances) * self.gpus_per_instance
        hours = gpus * HOURS_PER_YEAR
        usd = None if self.usd_per_gpu_hour is None else hours * self.usd_per_gpu_hour
        return FleetCost(instances, gpus, hours, usd)


def costs_of(setup: Setup) -> Costs:
    """Return the costs of a setup's instances."""
    return Costs(setup.instance.tensor_parallel, setup.spare, setup.price_usd_h)
