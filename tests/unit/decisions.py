"""A decision, and what is learned from it, for the tests of listeners."""

from extproc.core.estimator.protocol import CategoryKey, Estimate, Learning, Source
from extproc.core.facts import Api
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason

__all__ = ["DECISION", "LEARNED", "LONG", "SHORT"]

SHORT, LONG = Pool("short", 100), Pool("long", 1_000)
DECISION = Decision(
    pool=SHORT,
    reason=Reason.FITS,
    mode=Mode.ENFORCE,
    routed=True,
    api=Api.CHAT,
    model="m",
    estimate=Estimate(
        90.0, 120.0, 50, output_declared=True, source=Source.YOUNG, category=CategoryKey("m", "latin")
    ),
    budget=TokenBudget(90, 120, 50, 1, 90),
    body_bytes=400,
)
LEARNED = Learning(0.9, under_counted=False, bytes_per_token=4.2)
