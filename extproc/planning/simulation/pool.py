"""The instances of one pool, and the balancer over those that are alive."""

from dataclasses import dataclass

from extproc.core.placing.fleet import Busy
from extproc.planning.hardware.roofline import IterationCost
from extproc.planning.model.throughput import InstanceLimits
from extproc.planning.simulation.balancing import Balancing, make_balancer
from extproc.planning.simulation.instance import VllmInstance
from extproc.planning.simulation.sequence import Sequence

__all__ = ["PoolSpec", "SimulatedPool"]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """One pool: how many instances, and of what kind."""

    name: str
    instances: int
    limits: InstanceLimits
    cost: IterationCost


class SimulatedPool:
    """One pool during a run. An instance keeps its index when others die."""

    def __init__(self, spec: PoolSpec, balancing: Balancing, seed: int) -> None:
        self.spec = spec
        self.instances = [VllmInstance(spec.cost, spec.limits) for _ in range(spec.instances)]
        self._balancing = balancing
        self._seed = seed
        self._alive = list(range(spec.instances))
        self._place = list(range(spec.instances))  # each instance's position in _alive
        self._balancer = make_balancer(balancing, self.instances, seed)

    def busy(self) -> Busy:
        """Return the load that the servers still alive would report now."""
        alive = [self.instances[which] for which in self._alive]
        waiting = sum(each.waiting for each in alive)
        return Busy(
            endpoints=len(alive),
            waiting=waiting,
            running=sum(each.outstanding for each in alive) - waiting,
            kv_usage=sum(each.kv_usage for each in alive) / len(alive),
            kv_tokens=len(alive) * self.spec.limits.data_parallel * self.spec.limits.kv_tokens,
        )

    def accepts(self, prompt: int, declared: int | None) -> bool:
        """Return whether an instance would accept a request of this length."""
        context, output = self.spec.limits.context_tokens, 1 if declared is None else declared
        if self.spec.limits.shortens_outputs:
            return prompt < context and output <= context
        return prompt + output <= context

    def pick(self) -> int:
        """Return the index of the instance for the next request."""
        return self._alive[self._balancer.pick()]

    def touched(self, which: int) -> None:
        """Note that an instance accepted a request, produced a first token, or finished a request."""
        self._balancer.touched(self._place[which])

    def fail_busiest(self) -> list[Sequence]:
        """Kill the instance with the most requests, and return its requests; the last instance alive is spared."""
        if len(self._alive) == 1:
            return []
        dead = max(self._alive, key=lambda which: self.instances[which].outstanding)
        self._alive.remove(dead)
        for place, which in enumerate(self._alive):
            self._place[which] = place
        alive = [self.instances[which] for which in self._alive]
        self._balancer = make_balancer(self._balancing, alive, self._seed)
        for which in self._alive:
            self.touched(which)  # a new balancer assumes that all of them are idle
        return self.instances[dead].fail()
