"""JSON patches of located values: one value is added, replaced or removed at the end of a JSON pointer."""

from typing import Any, Final

from extproc.gateways.kubernetes.manifests import field_of, inner, text_of
from extproc.gateways.parsing.sources import LocatedList, LocatedMap

__all__ = ["Steps", "patched_at", "steps_to"]

Steps = tuple[str, ...]


# Of this map of hosts and tables Envoy Gateway generates nothing; what else there is, is not all known here.
_NOT_GENERATED: Final = "typed_per_filter_config"


def steps_to(path: str) -> Steps:
    """Return the steps of a JSON pointer."""
    return tuple(each.replace("~1", "/").replace("~0", "~") for each in path.removeprefix("/").split("/"))


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
    elif text_of(operation, "op") == "add" or (_is_there(name, values) and text_of(operation, "op") == "replace"):
        result[name] = operation.get("value")
        result.places[name] = operation.places.get("value", operation.place)
    return result


def _is_there(name: str, values: LocatedMap) -> bool:
    return name in values or name != _NOT_GENERATED


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
