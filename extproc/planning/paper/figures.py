"""The figures that arXiv 2604.08075 reports, for comparison with the planner's; "-" if it reports none."""

from dataclasses import dataclass

__all__ = ["PAPER", "PAPER_MI300X", "PAPER_SLOTS", "PaperFigures", "PaperProjection"]

PAPER_SLOTS = (16, 128)  # sequences per instance at 65,536 and at 8,192 tokens


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """The paper's figures for one workload.

    `implied_alpha` gives its closed-form saving (60.0 and 51.0 %) at rho = 11.2 / 2.8.
    Pairs are one pool / two pools; pairs of times are P50 / P99, in seconds for TTFT and milliseconds for TPOT.
    """

    implied_alpha: float
    one: int
    two: int
    preemptions: str = "-"
    out_of_memory: str = "-"
    success: str = "-"
    ttft_one: str = "-"
    ttft_two: str = "-"
    tpot_one: str = "-"
    tpot_two: str = "-"


PAPER = {
    "Azure": PaperFigures(
        implied_alpha=0.80,
        one=358,
        two=208,
        preemptions="47.3 / 8.7",
        out_of_memory="2.1 / .4",
        success="99.69 / 99.95 %",
        ttft_one=".42 / 1.82",
        ttft_two=".28 / 1.71",
        tpot_one="28 / 67",
        tpot_two="25 / 62",
    ),
    "LMSYS": PaperFigures(implied_alpha=0.68, one=358, two=246),
}


@dataclass(frozen=True, slots=True)
class PaperProjection:
    """The paper's projection for Qwen3-235B on MI300X at 10,000 req/s: GPUs, and millions of dollars per year."""

    one_gpus: int = 1_576
    two_gpus: int = 1_096
    one_musd: float = 50.6
    two_musd: float = 35.2


PAPER_MI300X = PaperProjection()
