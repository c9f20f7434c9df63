"""Load balancing in a pool: the rules by which Envoy and others pick an instance.

least-request  Envoy's LEAST_REQUEST with equal weights: draw `choices` instances at random (choice_count, 2 by
               default; the same one may be drawn twice), then take the one with the fewest active requests
full-scan      the fewest active requests of all instances (Envoy: selection_method FULL_SCAN); among equals one at
               random. The one whose load has not changed for longest would often be one with a long prefill
tokens         the fewest prompt tokens that still wait for a first token: possible for an endpoint picker that
               sees prompts and responses, but not for Envoy alone; among equals the one whose load has not changed
               for longest
round-robin    in rotation

Envoy's rules: source/extensions/load_balancing_policies/least_request/least_request_lb.cc. One Envoy is assumed;
each of several would see only its own requests, which brings LEAST_REQUEST closer to random choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

import numpy as np

from extproc.planning.simulation.instance import VllmInstance

__all__ = ["ENVOYS_DEFAULT", "Balance", "Balancer", "Balancing", "make_balancer"]

DRAWN_AT_ONCE = 4096


class Balance(StrEnum):
    """The rule by which a pool picks an instance."""

    LEAST_REQUEST = "least-request"
    FULL_SCAN = "full-scan"
    TOKENS = "tokens"
    ROUND_ROBIN = "round-robin"


@dataclass(frozen=True, slots=True)
class Balancing:
    """A rule, and the number of instances that LEAST_REQUEST compares."""

    rule: Balance = Balance.LEAST_REQUEST
    choices: int = 2

    def __str__(self) -> str:
        """Return the rule as Envoy names it."""
        if self.rule is Balance.LEAST_REQUEST:
            return f"LEAST_REQUEST, choice_count {self.choices}"
        return {
            Balance.FULL_SCAN: "LEAST_REQUEST, FULL_SCAN",
            Balance.TOKENS: "fewest unanswered prompt tokens",
            Balance.ROUND_ROBIN: "ROUND_ROBIN",
        }[self.rule]

    @property
    def needs(self) -> str:
        """The component that this rule requires besides Envoy ('' if Envoy suffices)."""
        return "an endpoint picker" if self.rule is Balance.TOKENS else ""


ENVOYS_DEFAULT = Balancing()


class Balancer(Protocol):
    """Picks an instance by index; `touched` is called when the load of one changed."""

    def pick(self) -> int:
        """Return the index of the instance for the next request."""
        ...

    def touched(self, index: int) -> None:
        """Note that an instance accepted a request, produced a first token, or finished a request."""
        ...


def make_balancer(balancing: Balancing, instances: list[VllmInstance], seed: int) -> Balancer:
    """Return the balancer of one pool; `seed` makes its random draws repeatable."""
    match balancing.rule:
        case Balance.LEAST_REQUEST:
            return _Drawn(instances, balancing.choices, seed)
        case Balance.ROUND_ROBIN:
            return _Turns(len(instances))
        case Balance.FULL_SCAN:
            return _FewestRequests(instances, seed)
        case Balance.TOKENS:
            return _FewestTokens(instances)


class _Drawn:
    def __init__(self, instances: list[VllmInstance], choices: int, seed: int) -> None:
        self._instances = instances
        self._choices = choices
        self._drawn = _draws(len(instances), seed)

    def pick(self) -> int:
        best = next(self._drawn)
        for _ in range(self._choices - 1):
            other = next(self._drawn)
            if self._instances[other].outstanding < self._instances[best].outstanding:
                best = other
        return best

    def touched(self, index: int) -> None:
        """Do nothing: `pick` reads the current loads."""


class _Turns:
    def __init__(self, instances: int) -> None:
        self._count = instances
        self._turn = -1

    def pick(self) -> int:
        self._turn = (self._turn + 1) % self._count
        return self._turn

    def touched(self, index: int) -> None:
        """Do nothing: loads do not matter."""


class _FewestRequests:
    """The instances by their number of requests, so that a draw among those with the fewest is one step."""

    def __init__(self, instances: list[VllmInstance], seed: int) -> None:
        self._instances = instances
        self._loads = [0] * len(instances)
        self._places = list(range(len(instances)))  # in the list of those with the same load
        self._by_load = {0: list(range(len(instances)))}
        self._least = 0
        self._uniform = _uniform(seed)

    def pick(self) -> int:
        equals = self._by_load[self._least]
        return equals[0] if len(equals) == 1 else equals[int(next(self._uniform) * len(equals))]

    def touched(self, index: int) -> None:
        load = self._instances[index].outstanding
        left, place = self._by_load[self._loads[index]], self._places[index]
        left[place] = left[-1]
        self._places[left[place]] = place
        left.pop()
        joined = self._by_load.setdefault(load, [])
        self._loads[index], self._places[index] = load, len(joined)
        joined.append(index)
        self._least = min(self._least, load)
        while not self._by_load.get(self._least):
            self._least += 1


class _FewestTokens:
    """A heap of (tokens, serial number of the change, index); outdated entries are dropped at the top."""

    def __init__(self, instances: list[VllmInstance]) -> None:
        self._instances = instances
        self._serial = count()
        self._latest = [next(self._serial) for _ in instances]
        self._order = [(0, serial, index) for index, serial in enumerate(self._latest)]
        heapify(self._order)

    def pick(self) -> int:
        while True:
            tokens, serial, index = self._order[0]
            if serial == self._latest[index] and tokens == self._instances[index].unanswered_tokens:
                return index
            heappop(self._order)

    def touched(self, index: int) -> None:
        serial = next(self._serial)
        self._latest[index] = serial
        heappush(self._order, (self._instances[index].unanswered_tokens, serial, index))


def _draws(below: int, seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.integers(0, below, DRAWN_AT_ONCE).tolist()


def _uniform(seed: int) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.random(DRAWN_AT_ONCE).tolist()
