"""EnvoyPatchPolicies: fields of the connection manager are set, and whatever else they patch is reported."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, made, merged, text_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["patched", "unapplied"]

MANAGER_PATH: Final = "/filters/0/typed_config/"


def patched(manager: LocatedMap, manifests: Manifests) -> LocatedMap:
    """Return the connection manager with the fields that patches set in it."""
    for patch in _patches(manifests):
        operation = inner(patch, "operation")
        if steps := _fields(operation):
            manager = _set(manager, steps, operation)
    return manager


def unapplied(manifests: Manifests) -> Iterator[str]:
    """Yield a sentence for each patch whose effect is not known."""
    for patch in _patches(manifests):
        operation = inner(patch, "operation")
        if not _fields(operation):
            kind = text_of(patch, "type").rpartition(".")[2]
            words = (text_of(operation, "op"), kind, text_of(operation, "jsonPath"), text_of(operation, "path"))
            said = " ".join(word for word in words if word)
            yield f"{patch.place}: the patch ({said}) is not applied, and so is not checked"


def _set(values: LocatedMap, steps: list[str], operation: LocatedMap) -> LocatedMap:
    """Return the values with a field set as JSON Patch does: whatever it held before is replaced."""
    first, *rest = steps
    value = _set(inner(values, first), rest, operation) if rest else operation.get("value")
    kept = LocatedMap(values.place, {name: held for name, held in values.items() if name != first})
    kept.places = dict(values.places)
    return merged(kept, made(operation.place, **{first: value}))


def _patches(manifests: Manifests) -> Iterator[LocatedMap]:
    for policy in manifests.of("EnvoyPatchPolicy"):
        yield from items_of(inner(policy, "spec"), "jsonPatches")


def _fields(operation: LocatedMap) -> list[str]:
    """Return the path of the field of the connection manager that is set, empty if it is anything else.

    An index may mean another filter or route than in our translation: what it is the index of, is not all known.
    """
    steps = text_of(operation, "path").partition(MANAGER_PATH)[2].split("/")
    known = "jsonPath" not in operation and text_of(operation, "op") in ("add", "replace")
    return steps if known and not any(step in ("", "-") or step.isdecimal() for step in steps) else []
