"""The highest cost of one request body: decisions on bodies built to be expensive, in the measuring process.

Time is the thread's CPU time, so other load on the machine does not count. For each body the smallest time is
taken; the largest of these is what a client can cause.
"""

import time
from typing import Final

from bench.measuring import Plan, Table
from bench.stack import Stack
from bench.worst import WorstBody, worst_bodies
from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.facts import RequestHead
from extproc.core.listener import Listener
from extproc.core.router.placer import Placer

__all__ = ["measure"]

BODY_BYTES: Final = (1 << 20) - 64  # no router holds a full mebibyte: it would be decided before its end
BAR_MS: Final = 5.0
SHOWN: Final = 8
# The largest bodies that can be configured to be read: with 64K tokens, 1 MiB may still fit the smaller pool.
CONFIGURATION: Final = """\
pools: [{name: short, max_budget_tokens: 65536}, {name: long, max_budget_tokens: 262144}]
exchange: {max_held_bytes: 1048576}
"""


def measure(_stack: Stack, plan: Plan) -> list[Table]:
    """Decide each body in turn, `rounds` times."""
    placer = compose(parse(CONFIGURATION), Listener()).placer
    times_ms = {
        worst.name: min(_cpu_ms(placer, worst) for _ in range(plan.rounds)) for worst in worst_bodies(BODY_BYTES)
    }
    costly = sorted(times_ms.items(), key=lambda item: -item[1])
    met = "met" if costly[0][1] <= BAR_MS else "missed"
    return [
        Table(
            "Worst bodies",
            f"{len(times_ms)} bodies of up to 1 MiB, each built to be as expensive as possible; the smaller "
            f"pool has 64K tokens. CPU time of a decision, minimum of {plan.rounds}; the {SHOWN} most expensive "
            f"bodies. Bar {BAR_MS:.0f} ms: {met}.",
            ("body", "ms"),
            [(name, f"{ms:.2f}") for name, ms in costly[:SHOWN]],
        )
    ]


def _cpu_ms(placer: Placer, worst: WorstBody) -> float:
    before = time.thread_time()
    placer.decide(worst.api, RequestHead("POST", content_encoding=worst.encoding), worst.body)
    return (time.thread_time() - before) * 1_000
