"""JSON patches of located values: one value is added, replaced or removed at the end of a JSON pointer."""

from typing import Any

from extproc.gateways.kubernetes.manifests import field_of, inner, text_of
from extproc.gateways.parsing.sources import LocatedList, LocatedMap

__all__ = ["Steps", "patched_at"]

Steps = tuple[str, ...]


def patched_at(values: LocatedMap, steps: Steps, operation: LocatedMap) -> LocatedMap:
    """Return the values with an operation applied; mappings on the way that are not there are made.

    An element that is not there is not patched, and then nothing is.
    """
    first, rest = steps[0], steps[1:]
    name = field_of(values, first)
    held = values.get(name)
    result = LocatedMap(values.place, {key: value for key, value in values.items() if key != name})
    result.places = {key: place for key, place in values.places.items() if key != name}
    if isinstance(held, LocatedList) and rest:
        result[name] = _in_list(held, rest, operation)
    elif rest:
        result[name] = patched_at(inner(values, name), rest, operation)
    elif text_of(operation, "op") != "remove":
        result[name] = operation.get("value")
        result.places[name] = operation.places.get("value", operation.place)
    return result


def _in_list(values: LocatedList, steps: Steps, operation: LocatedMap) -> LocatedList:
    result = LocatedList(values.place, values)
    rest, op = steps[1:], text_of(operation, "op")
    at = len(values) if steps[0] == "-" else int(steps[0])
    if at > len(values) or (at == len(values) and (rest or op != "add")):
        return result
    value: Any = operation.get("value")
    if rest:
        result[at] = patched_at(values[at], rest, operation)
    else:
        result[at : at + (op != "add")] = [] if op == "remove" else [value]
    return result
