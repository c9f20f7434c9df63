"""Costs of a simulated fleet, counted as in the cost model: in GPUs and money, with the spares of each pool."""

from dataclasses import dataclass

from extproc.planning.model.setup import HOURS_PER_YEAR, Setup
from extproc.planning.simulation.runner import FleetEstimate

__all__ = ["Costs", "FleetCost", "costs_of"]


@dataclass(frozen=True, slots=True)
class FleetCost:
    """The cost of one fleet, with the spares of each pool.

    `shape` describes the pools as instances times GPUs, with the names of the GPUs if they are not all those that
    the plan is for.
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
    """Cost parameters; `spare` is per pool.

    GPUs per instance, price (None: unknown) and GPU name apply to designs that have no setups of their own.
    """

    gpus_per_instance: int
    spare: int
    usd_per_gpu_hour: float | None
    gpu_name: str = ""

    def of(self, fleet: FleetEstimate) -> FleetCost:
        """Return the cost of the median seed's fleet."""
        instances = tuple(size + self.spare for size in fleet.typical.instances)
        own = fleet.design.setups
        each = tuple(setup.instance.gpus for setup in own) or (self.gpus_per_instance,) * len(instances)
        prices = tuple(setup.price_usd_h for setup in own) or (self.usd_per_gpu_hour,) * len(instances)
        gpus = [count * size for count, size in zip(instances, each, strict=True)]
        known = [price for price in prices if price is not None]
        hourly = sum(count * price for count, price in zip(gpus, known, strict=False))
        usd = round(HOURS_PER_YEAR * hourly, 2) if len(known) == len(gpus) else None
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
