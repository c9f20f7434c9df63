"""Fleets whose pools serve each other's requests: the sizes of the pools are not independent.

A pool is blamed for requests that it served late, also for those that a pool that was too small passed on to it.
So the size at which it then failed may be enough beside a larger neighbour, and a search with bounds for each pool
ends with a fleet that is larger than it has to be.
"""

from collections.abc import Callable, Sequence

from extproc.planning.simulation.bracket import TOLERANCE

__all__ = ["shrunk"]

Sizes = tuple[int, ...]


def shrunk(sizes: Sizes, costs: Sequence[float], passes: Callable[[Sizes], bool]) -> Sizes:
    """Return a fleet that passes as the given one does, and none of whose pools can be smaller beside the others.

    Pools of the costliest instances come first. Steps double while smaller sizes pass, and halve where one fails,
    down to the tolerance of the search.
    """
    for index in sorted(range(len(sizes)), key=lambda index: -costs[index]):
        step = max(1, int(TOLERANCE * sizes[index]))
        while sizes[index] > 1 and step >= max(1, int(TOLERANCE * sizes[index])):
            less = (*sizes[:index], max(1, sizes[index] - step), *sizes[index + 1 :])
            if passes(less):
                sizes, step = less, 2 * step
            else:
                step //= 2
    return sizes
