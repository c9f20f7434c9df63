"""Rules of a VirtualService that leave their routes to another one, which has no hosts.

Each rule of the other one is laid over the delegating rule, and its conditions have to be within that rule's.
Source: Istio's `model/virtualservice.go`.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from extproc.gateways.kubernetes.istio.frontends import gateway_name
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

__all__ = ["Delegates"]

TEXTS: Final = ("uri", "scheme", "method", "authority")
NAMED: Final = ("headers", "withoutHeaders", "queryParams")
LABELS: Final = "sourceLabels"
Owned = tuple[LocatedMap, LocatedMap]
"""The VirtualService that a rule is from, whose namespace short names are of, and the rule."""


class Delegates:
    """The VirtualServices that rules may refer to: those without hosts, which have routes for others only."""

    def __init__(self, manifests: Manifests) -> None:
        self._by_name = {
            (namespace_of(each), name_of(each)): each
            for each in manifests.of("VirtualService")
            if not texts_of(inner(each, "spec"), "hosts")
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
                roots = _matches_of(rule, service)
                for each in items_of(inner(other, "spec"), "http"):
                    matches = _matches(roots, _matches_of(each, other))
                    if matches is not None:
                        yield other, _laid_over(rule, each, matches)


def _matches_of(rule: LocatedMap, owner: LocatedMap) -> list[LocatedMap]:
    """Return the matches of a rule with the full names of their gateways: the other rule may be of elsewhere."""
    return [_with_full_names(each, owner) for each in items_of(rule, "match")]


def _with_full_names(match: LocatedMap, owner: LocatedMap) -> LocatedMap:
    names = [gateway_name(each, owner) for each in texts_of(match, "gateways")]
    return made(match.place, **{**match, "gateways": names or None})


def _laid_over(root: LocatedMap, rule: LocatedMap, matches: list[LocatedMap]) -> LocatedMap:
    """Return a rule with what the delegating one adds to it, and with the matches of both."""
    return made(rule.place, **{**root, **rule, "match": matches, "name": _name(root, rule), "delegate": None})


def _matches(roots: list[LocatedMap], leaves: list[LocatedMap]) -> list[LocatedMap] | None:
    """Return the matches of two rules together; None if one of the second rule is within none of the first."""
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
    texts = [*_of_both(root, leaf, TEXTS)]
    for name in NAMED:
        theirs = inner(leaf, name)
        texts += _of_both(inner(root, name), theirs, theirs)
    labels, gateways = inner(root, LABELS), texts_of(root, "gateways")
    return (
        any(_exclude(one, other) for one, other in texts)
        or is_true(root, "ignoreUriCase") != is_true(leaf, "ignoreUriCase")
        or ("port" in root and text_of(leaf, "port", text_of(root, "port")) != text_of(root, "port"))
        or ("sourceNamespace" in root and text_of(leaf, "sourceNamespace") != text_of(root, "sourceNamespace"))
        or any(labels.get(name, value) != value for name, value in inner(leaf, LABELS).items())
        or (bool(gateways) and not set(texts_of(leaf, "gateways")) <= set(gateways))
    )


def _of_both(root: LocatedMap, leaf: LocatedMap, names: Iterable[str]) -> Iterator[tuple[LocatedMap, LocatedMap]]:
    return ((inner(root, name), inner(leaf, name)) for name in names if name in root and name in leaf)


def _exclude(root: LocatedMap, leaf: LocatedMap) -> bool:
    """Return whether a condition on a text is not within another one; to Istio none is within an expression."""
    if not root or not leaf:  # any value will do
        return True
    (kind, text), (its, value) = next(iter(root.items())), next(iter(leaf.items()))
    if kind == "exact":
        return (its, value) != (kind, text)
    return kind != "prefix" or its == "regex" or not str(value).startswith(str(text))
