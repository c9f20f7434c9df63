"""Results of the cost model: one pool, two pools at one threshold, and the full analysis of a workload."""

from dataclasses import dataclass

from extproc.planning.workload.declared import DeclaredRule

__all__ = ["Analysis", "Baseline", "Split"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One pool for all requests: its context, the rate of an instance (requests/s), and the instances needed."""

    name: str
    context_tokens: int
    rate_per_instance: float
    instances: int
    usd_per_year: float | None


@dataclass(frozen=True, slots=True)
class Split:
    """Two pools at one threshold. Savings are shares of the baseline's instances; `rho` is mu_S / mu_H.

    `break_even_rate` is the rate (requests/s) above which two pools need fewer instances than the right-sized
    pool; None if there is none.
    """

    threshold: int
    alpha: float
    rho: float
    short_rate: float
    long_rate: float
    short_instances: int
    long_instances: int
    closed_form: float
    honest_form: float
    saving_long: float
    saving_right_sized: float
    break_even_rate: float | None
    usd_per_year: float | None

    @property
    def instances(self) -> int:
        """Instances of both pools."""
        return self.short_instances + self.long_instances


@dataclass(frozen=True, slots=True)
class Analysis:
    """The cost model's results for one workload and one assumption about declared max_tokens.

    `splits` are the thresholds at which both pools can meet the TPOT objective; `out_of_reach` are the remaining
    thresholds. `best` is the split with the fewest instances; `band` is the range of thresholds that keep 80 % of
    its saving against the right-sized pool, None if it saves nothing.
    """

    rule: DeclaredRule
    rate: float
    long: Baseline
    right_sized: Baseline
    splits: tuple[Split, ...]
    best: Split
    band: tuple[int, int] | None
    out_of_reach: tuple[int, ...] = ()

    @property
    def two_pools_pay(self) -> bool:
        """Whether the best split needs fewer instances than the right-sized pool."""
        return self.best.instances < self.right_sized.instances
