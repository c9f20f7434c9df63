"""The paper's projection for Qwen3-235B on MI300X: with the rho that its figures imply, and by the roofline."""

from dataclasses import dataclass

import numpy as np

from extproc.planning.hardware.capacity import smallest_tensor_parallel
from extproc.planning.hardware.instance import Instance
from extproc.planning.hardware.profiles import Catalogue
from extproc.planning.model.analytic import analyse
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.paper.figures import PAPER, PAPER_MI300X, PaperProjection
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths

__all__ = ["MI300X", "project", "round_up"]

RATE = 10_000.0
CONTEXT = 32_768


@dataclass(frozen=True, slots=True)
class MI300X:
    """The projection for Qwen3-235B on MI300X: GPUs and dollars per year of one pool and of the best split.

    The paper gives GPUs but no rates: `implied_rho` is the rho that its saving implies at Azure's implied alpha,
    and `formula_gpus` are its one pool and two pools with that rho and the trace's own alpha at 8,192 tokens.
    """

    paper: PaperProjection
    implied_rho: float
    formula_gpus: tuple[int, int]
    gpus_per_instance: int
    max_num_seqs: int
    one_pool_gpus: int
    two_pool_gpus: int
    one_pool_usd: float
    two_pool_usd: float
    threshold: int
    rho: float


def project(catalogue: Catalogue, azure: Lengths, thresholds: tuple[int, ...], short: int) -> MI300X:
    """Compute the projection for Azure's lengths.

    All lengths are in tokens; `thresholds` are those of the cost model, `short` is the threshold of the formula.
    """
    model, gpu = catalogue.model("qwen3-235b-a22b"), catalogue.gpu("mi300x")
    instance = smallest_tensor_parallel(Instance(model, gpu, 1), CONTEXT, "qwen3-235b-a22b on mi300x")
    setup = Setup(
        "qwen3-235b-a22b", "mi300x", instance, CONTEXT, Objective(), spare=0, price_usd_h=gpu.price_usd_h
    )
    analysis = analyse(azure, RATE, setup, DeclaredRule.TRUTH, thresholds)
    gpus = instance.tensor_parallel
    paper = PAPER_MI300X
    # the paper's closed form, saving = alpha (1 - 1/rho), solved for rho
    rho = 1 / (1 - (1 - paper.two_gpus / paper.one_gpus) / PAPER["Azure"].implied_alpha)
    alpha = float(np.mean(azure.total <= short))
    return MI300X(
        paper=paper,
        implied_rho=rho,
        formula_gpus=(
            paper.one_gpus,
            round_up(alpha * paper.one_gpus / rho) + round_up((1 - alpha) * paper.one_gpus),
        ),
        gpus_per_instance=gpus,
        max_num_seqs=setup.limits(CONTEXT).max_num_seqs,
        one_pool_gpus=analysis.long.instances * gpus,
        two_pool_gpus=analysis.best.instances * gpus,
        one_pool_usd=analysis.long.usd_per_year or 0.0,
        two_pool_usd=analysis.best.usd_per_year or 0.0,
        threshold=analysis.best.threshold,
        rho=analysis.best.rho,
    )


def round_up(value: float) -> int:
    """Round up, ignoring the rounding error of a floating-point product."""
    return int(np.ceil(round(value, 9)))
