"""How ours is run on the streams of a scenario: on a stream as it is, and without what makes it hard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.evaluation.contestants import Contestant, byte_class
from extproc.evaluation.measure import Figures, Mask, figures, run
from extproc.evaluation.requests import Request

__all__ = ["ORDINARY", "Case", "Plan", "Streams", "beside", "figures_from", "figures_of", "of_groups", "ours"]

ORDINARY = ("", "session")
"""The groups of requests that nothing sets apart."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is run: requests of each stream, those not counted at its start, and the seeds.

    The vocabulary `left_out` is no part of the prior that models start from.
    """

    requests: int = 2_000
    warm_up: int = 500
    seeds: tuple[int, ...] = (1,)
    left_out: str = ""

    def contestant(self, *, told_tenants: bool = False, memory: bool = True) -> Contestant:
        """Return this project's estimator, new."""
        return byte_class(left_out=self.left_out, told_tenants=told_tenants, memory=memory)


@dataclass(frozen=True, slots=True)
class Case:
    """Ours on one stream, by seed; `without` is the same without what makes it hard, or ()."""

    name: str
    figures: tuple[Figures, ...]
    without: tuple[Figures, ...] = ()


Streams = Sequence[Sequence[Request]]


def figures_of(
    contestant: Contestant,
    stream: Sequence[Request],
    plan: Plan,
    *,
    told: Sequence[int] | None = None,
    in_flight: int = 0,
    only: Mask | None = None,
) -> Figures:
    """Return the figures of a contestant on one stream."""
    return figures(run(contestant, stream, told, in_flight), stream, plan.warm_up, only)


def ours(
    streams: Streams,
    plan: Plan,
    *,
    in_flight: int = 0,
    told_tenants: bool = False,
    only: Sequence[str] = (),
    memory: bool = True,
) -> tuple[Figures, ...]:
    """Return those of ours on each stream, of the groups `only`, if they are given."""
    return tuple(
        figures_of(
            plan.contestant(told_tenants=told_tenants, memory=memory),
            stream,
            plan,
            in_flight=in_flight,
            only=of_groups(stream, only) if only else None,
        )
        for stream in streams
    )


def beside(name: str, streams: Streams, groups: Sequence[str], plan: Plan) -> Case:
    """Return the figures of some groups in a stream, and of the same requests in a stream without all others."""
    without = []
    for stream in streams:
        chosen = of_groups(stream, groups)
        alone = [request for request, is_chosen in zip(stream, chosen, strict=True) if is_chosen]
        warm_up = int(chosen[: plan.warm_up].sum())  # those that are not counted beside the others, either
        without.append(figures_of(plan.contestant(), alone, replace(plan, warm_up=warm_up)))
    return Case(name, ours(streams, plan, only=groups), tuple(without))


def figures_from(stream: Sequence[Request], start: int, plan: Plan, warm_up: int) -> Figures:
    """Return figures as if a run had begun at the request `start`, with what was learned by then."""
    result = run(plan.contestant(), stream)
    return figures(result.of(np.arange(len(stream)) >= start), stream[start:], warm_up)


def of_groups(stream: Sequence[Request], groups: Sequence[str]) -> Mask:
    """Tell which requests are of these groups."""
    return np.array([request.group in groups for request in stream])
