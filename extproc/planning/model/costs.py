"""What a simulated fleet costs, counted as the cost model counts: in GPUs and money, with the spares of each
pool.
"""

from dataclasses import dataclass

from extproc.planning.model.setup import HOURS_PER_YEAR, Setup
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["Costs", "FleetCost", "costs_of"]


@dataclass(frozen=True, slots=True)
class FleetCost:
    """One fleet: instances of each pool with its spares, GPUs of an instance of each pool and their name, all
    GPUs, GPU-hours and dollars a year. `shape` tells the pools as instances times GPUs, and which GPUs where they
    are not those that the plan is for.
    """

    shape: str
    instances: tuple[int, ...]
    gpus_per_instance: tuple[int, ...]
    gpu_names: tuple[str, ...]
    gpus: int
    gpu_hours_per_year: int
    usd_per_year: float | None


@dataclass(frozen=True, slots=True)
class Costs:
    """GPUs of an instance, spare instances of each pool, dollars of a GPU and hour (None: not known), and the
    GPU's name, for pools that have no instances of their own.
    """

    gpus_per_instance: int
    spare: int
    usd_per_gpu_hour: float | None
    gpu_name: str = ""

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
        names = tuple(setup.gpu_name for setup in own) or (self.gpu_name,) * len(instances)
        shape = self._shape(instances, each, names)
        return FleetCost(shape, instances, each, names, sum(gpus), sum(gpus) * HOURS_PER_YEAR, usd)

    def _shape(self, instances: tuple[int, ...], gpus: tuple[int, ...], names: tuple[str, ...]) -> str:
        usual = {*names, self.gpu_name or names[0]}
        pools = zip(instances, gpus, names, strict=True)
        return " + ".join(
            f"{count} x {each}" + (f" {name}" if len(usual) > 1 else "") for count, each, name in pools
        )


def costs_of(setup: Setup) -> Costs:
    """Return the costs of a setup's instances."""
    return Costs(setup.instance.gpus, setup.spare, setup.price_usd_h, setup.gpu_name)
