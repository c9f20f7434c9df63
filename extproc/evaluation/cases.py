"""Runs of this project's estimator on the streams of a scenario: as they are, and without what makes them hard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from extproc.evaluation.contestants import Contestant, byte_class
from extproc.evaluation.measure import Figures, Mask, figures, run
from extproc.evaluation.requests import Request

__all__ = [
    "ORDINARY",
    "Case",
    "Plan",
    "Streams",
    "figures_from",
    "figures_of",
    "of_groups",
    "ours",
    "with_and_without",
]

ORDINARY = ("", "session")
"""The groups of the requests that are not special in any way."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run: the requests of each stream, those at its start that do not count, and the seeds.

    Models start from a prior without the vocabulary `left_out`.
    """

    requests: int = 2_000
    warm_up: int = 500
    seeds: tuple[int, ...] = (1,)
    left_out: str = ""

    def contestant(self, *, with_tenants: bool = False, memory: bool = True) -> Contestant:
        """Return a new instance of this project's estimator."""
        return byte_class(left_out=self.left_out, with_tenants=with_tenants, memory=memory)


@dataclass(frozen=True, slots=True)
class Case:
    """Figures on one stream, by seed; `without` has those on the stream without what makes it hard, or is ()."""

    name: str
    figures: tuple[Figures, ...]
    without: tuple[Figures, ...] = ()


Streams = Sequence[Sequence[Request]]


def figures_of(
    contestant: Contestant,
    stream: Sequence[Request],
    plan: Plan,
    *,
    reported: Sequence[int] | None = None,
    in_flight: int = 0,
    only: Mask | None = None,
) -> Figures:
    """Return the figures of a contestant on one stream."""
    return figures(run(contestant, stream, reported, in_flight), stream, plan.warm_up, only)


def ours(
    streams: Streams,
    plan: Plan,
    *,
    in_flight: int = 0,
    with_tenants: bool = False,
    only: Sequence[str] = (),
    memory: bool = True,
) -> tuple[Figures, ...]:
    """Return the figures of this project's estimator on each stream; if given, only of the groups `only`."""
    return tuple(
        figures_of(
            plan.contestant(with_tenants=with_tenants, memory=memory),
            stream,
            plan,
            in_flight=in_flight,
            only=of_groups(stream, only) if only else None,
        )
        for stream in streams
    )


def with_and_without(name: str, streams: Streams, plan: Plan) -> Case:
    """Return the figures of ordinary requests in each stream, and of the same requests without the others."""
    without = []
    for stream in streams:
        chosen = of_groups(stream, ORDINARY)
        alone = [request for request, is_chosen in zip(stream, chosen, strict=True) if is_chosen]
        warm_up = int(chosen[: plan.warm_up].sum())  # the ones within the warm-up of the full stream
        without.append(figures_of(plan.contestant(), alone, replace(plan, warm_up=warm_up)))
    return Case(name, ours(streams, plan, only=ORDINARY), tuple(without))


def figures_from(stream: Sequence[Request], start: int, plan: Plan, warm_up: int) -> Figures:
    """Return the figures as if a run had begun at the request `start`, but with all that was learned before."""
    result = run(plan.contestant(), stream)
    return figures(result.of(np.arange(len(stream)) >= start), stream[start:], warm_up)


def of_groups(stream: Sequence[Request], groups: Sequence[str]) -> Mask:
    """Return which requests belong to these groups."""
    return np.array([request.group in groups for request in stream])
