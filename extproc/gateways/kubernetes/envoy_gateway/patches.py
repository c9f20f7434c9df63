"""EnvoyPatchPolicies: patches of listeners, of their filters and routes, and clusters that they add.

Whatever else they patch is reported. Source: `internal/xds/translator/jsonpatch.go` of Envoy Gateway.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from extproc.gateways.kubernetes.envoy_gateway.followed import (
    CLUSTER,
    FILTERS,
    LISTENER,
    ROUTES,
    chain_of,
    kind_of,
    steps_of,
    sure_of,
)
from extproc.gateways.kubernetes.envoy_gateway.listeners import Listener, named_listeners
from extproc.gateways.kubernetes.envoy_gateway.pointers import Steps, patched_at, steps_to
from extproc.gateways.kubernetes.envoy_gateway.selectors import oldest_first
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, priority_of, text_of
from extproc.gateways.kubernetes.type_names import EXT_PROC, FILTER_CONFIG
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Patches", "unapplied"]


@dataclass(frozen=True, slots=True)
class Patch:
    """One JSON patch of what is called `name`."""

    kind: str
    name: str
    given: LocatedMap
    steps: Steps | None
    """None if it cannot be followed."""

    def is_of(self, listener: Listener) -> bool:
        """Return whether it patches this listener or its table of routes, by the name."""
        return listener.is_called(self.name, table=self.kind == ROUTES)

    @property
    def operation(self) -> LocatedMap:
        """What it does."""
        return inner(self.given, "operation")

    @property
    def chain(self) -> str:
        """The filter chain that it patches in a listener, "" if none."""
        return "/".join(chain_of(steps_to(text_of(self.operation, "path")))) if self.kind == LISTENER else ""

    @property
    def processor(self) -> str | None:
        """The name of the external processor that it inserts among the filters, None if it inserts none."""
        if self.steps is None or self.steps[:-1] != FILTERS or text_of(self.operation, "op") == "remove":
            return None
        value = inner(self.operation, "value")
        return text_of(value, "name") if EXT_PROC in str(value) else None


class Patches:
    """The patches of all policies in the order in which they are applied."""

    def __init__(self, manifests: Manifests) -> None:
        sure = sure_of(manifests)
        self.all = [
            Patch(kind_of(each), text_of(each, "name"), each, steps_of(each, sure))
            for policy in sorted(oldest_first(manifests.of("EnvoyPatchPolicy")), key=priority_of)
            for each in items_of(inner(policy, "spec"), "jsonPatches")
        ]

    @property
    def names(self) -> list[str]:
        """The names of the listeners that are patched."""
        return [each.name for each in self.all if each.kind == LISTENER]

    @property
    def clusters(self) -> list[LocatedMap]:
        """The clusters that are added."""
        return [
            inner(each.operation, "value") for each in self.all if each.kind == CLUSTER and each.steps is not None
        ]

    @property
    def insert_processors(self) -> bool:
        """Whether an external processor is inserted into the filters of any listener."""
        return any(each.processor is not None for each in self.all)

    def insert_processor_into(self, listener: Listener) -> bool:
        """Return whether one is inserted into those of this listener."""
        return any(each.processor is not None for each in self._of(listener))

    def applied(self, values: LocatedMap, listener: Listener) -> LocatedMap:
        """Return a listener's configuration with its patches.

        A processor that routes may enable by patches that cannot be followed is taken to be on.
        """
        patches = list(self._of(listener))
        for each in patches:
            if each.steps is not None:
                values = patched_at(values, each.steps, each.operation)
        untold = str([each.operation for each in patches if each.kind == ROUTES and each.steps is None])
        for each in patches:
            if each.processor and each.processor in untold:
                values = _enabled(values, each.processor, each.operation)
        return values

    def _of(self, listener: Listener) -> Iterator[Patch]:
        return (
            each for each in self.all if each.kind != CLUSTER and each.is_of(listener) and listener.has(each.chain)
        )


def unapplied(manifests: Manifests) -> Iterator[str]:
    """Yield a sentence for each patch whose effect is not known, or that is of a listener that no Gateway has."""
    every = named_listeners(manifests)
    for each in Patches(manifests).all:
        named = [listener for listener in every if each.is_of(listener)]
        if each.steps is None:
            op, path = (text_of(each.operation, name) for name in ("op", "path"))
            said = " ".join(word for word in (op, each.kind, text_of(each.operation, "jsonPath"), path) if word)
            yield f"{each.given.place}: the patch ({said}) is not applied, and so is not checked"
        elif each.kind != CLUSTER and every and not named:
            yield f'{each.given.place}: no Gateway in the input has the listener "{each.name}" that is patched'
        elif named and not any(listener.has(each.chain) for listener in named):
            has = " and ".join(listener.chain for listener in named)
            yield f'{each.given.place}: the listener "{each.name}" has {has}, not {each.chain}, which is patched'


def _enabled(values: LocatedMap, name: str, operation: LocatedMap) -> LocatedMap:
    """Return a listener's configuration with a filter that is on wherever no route says something else."""
    on = LocatedMap(operation.place, {"@type": FILTER_CONFIG})
    added = LocatedMap(operation.place, {"op": "add", "value": on})
    return patched_at(values, (*FILTERS[:-1], "route_config", "typed_per_filter_config", name), added)
