"""Rules of a VirtualService that leave their routes to another one, which has no hosts.

Each rule of the other one is laid over the delegating rule, and its conditions have to be within that rule's.
Source: Istio's `model/virtualservice.go`.
"""

from collections.abc import Iterator
from itertools import product
from typing import Final

from extproc.gateways.kubernetes.manifests import (
    Manifests,
    inner,
    is_true,
    items_of,
    made,
    name_of,
    namespace_of,
    text_of,
    texts_of,
)
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["Delegates", "is_delegate"]

TEXTS: Final = ("uri", "scheme", "method", "authority")
NAMED: Final = ("headers", "withoutHeaders", "queryParams")
LABELS: Final = "sourceLabels"
Owned = tuple[LocatedMap, LocatedMap]
"""The VirtualService that a rule is from, whose namespace short names are of, and the rule."""


def is_delegate(service: LocatedMap) -> bool:
    """Return whether a VirtualService has routes for others only."""
    return not texts_of(inner(service, "spec"), "hosts")


class Delegates:
    """The VirtualServices that rules may refer to."""

    def __init__(self, manifests: Manifests) -> None:
        self._by_name = {
            (namespace_of(each), name_of(each)): each
            for each in manifests.of("VirtualService")
            if is_delegate(each)
        }

    def rules_of(self, service: LocatedMap) -> Iterator[Owned]:
        """Yield the rules of a VirtualService, with others' in the place of those that delegate."""
        for rule in items_of(inner(service, "spec"), "http"):
            named = inner(rule, "delegate")
            if "delegate" not in rule:
                yield service, rule
            elif other := self._by_name.get(
                (text_of(named, "namespace") or namespace_of(service), text_of(named, "name"))
            ):
                for each in items_of(inner(other, "spec"), "http"):
                    if (both := _laid_over(rule, each)) is not None:
                        yield other, both


def _laid_over(root: LocatedMap, rule: LocatedMap) -> LocatedMap | None:
    """Return a rule with what the delegating one adds to it; None if they contradict each other."""
    matches = _matches(items_of(root, "match"), items_of(rule, "match"))
    if matches is None:
        return None
    return made(rule.place, **{**root, **rule, "match": matches, "name": _name(root, rule), "delegate": None})


def _matches(roots: list[LocatedMap], leaves: list[LocatedMap]) -> list[LocatedMap] | None:
    if not roots or not leaves:
        return roots or leaves
    pairs = [(root, leaf) for leaf, root in product(leaves, roots) if not _contradict(root, leaf)]
    if any(all(leaf is not each for _, each in pairs) for leaf in leaves):
        return None
    return [_both(root, leaf) for root, leaf in pairs]


def _both(root: LocatedMap, leaf: LocatedMap) -> LocatedMap:
    merged = {name: made(leaf.place, **{**inner(root, name), **inner(leaf, name)}) for name in (*NAMED, LABELS)}
    return made(leaf.place, **{**root, **leaf, **merged, "name": _name(root, leaf)})


def _name(root: LocatedMap, leaf: LocatedMap) -> str:
    return "-".join(filter(None, (text_of(root, "name"), text_of(leaf, "name"))))


def _contradict(root: LocatedMap, leaf: LocatedMap) -> bool:
    """Return whether a condition of a rule is not within that of the delegating one."""
    texts = [(root.get(name), leaf.get(name)) for name in TEXTS]
    texts += [(inner(root, name).get(key), each) for name in NAMED for key, each in inner(leaf, name).items()]
    labels, gateways = inner(root, LABELS), texts_of(root, "gateways")
    return (
        any(_exclude(one, other) for one, other in texts)
        or is_true(root, "ignoreUriCase") != is_true(leaf, "ignoreUriCase")
        or ("port" in root and text_of(leaf, "port", text_of(root, "port")) != text_of(root, "port"))
        or ("sourceNamespace" in root and text_of(leaf, "sourceNamespace") != text_of(root, "sourceNamespace"))
        or any(labels.get(name, value) != value for name, value in inner(leaf, LABELS).items())
        or (bool(gateways) and not set(texts_of(leaf, "gateways")) <= set(gateways))
    )


def _exclude(root: LocatedMap | None, leaf: LocatedMap | None) -> bool:
    """Return whether a condition on a text is not within another one; to Istio none is within an expression."""
    if root is None or leaf is None:
        return False
    if not root or not leaf:  # any value will do
        return True
    (kind, text), (its, value) = next(iter(root.items())), next(iter(leaf.items()))
    if kind == "exact":
        return (its, value) != (kind, text)
    return kind != "prefix" or its == "regex" or not str(value).startswith(str(text))
