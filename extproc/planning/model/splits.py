"""What the cost model says: one pool and two, at one threshold, and all of it for one workload."""

from dataclasses import dataclass

from extproc.planning.workload.declared import DeclaredRule

__all__ = ["Analysis", "Baseline", "Split"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One pool for everything: its context, its instances' rate (requests/s), and how many are needed."""

    name: str
    context_tokens: int
    rate_per_instance: float
    instances: int
    usd_per_year: float | None


@dataclass(frozen=True, slots=True)
class Split:
    """Two pools at one threshold. Savings are shares of the baseline's instances; `rho` is mu_S / mu_H.

    `break_even_rate` is the rate (requests/s) from which on two pools need fewer instances than the right-sized
    pool; None when they never do.
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
    """Everything the cost model says about one workload and one rule of declared max_tokens.

    `splits` are the thresholds at which both pools can meet the TPOT objective, `out_of_reach` the others. `best`
    is the split with the fewest instances; `band` the thresholds that keep 80 % of its saving against the
    right-sized pool, None when it saves nothing.
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
