"""The filters that Envoy Gateway's policies put behind the processors: programs and compressors of responses.

Source: `wasm.go`, `dynamicmodule.go` and `compressor.go` in Envoy Gateway's `internal/xds/translator`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from extproc.gateways.kubernetes.envoy_gateway.routes import compressions
from extproc.gateways.kubernetes.envoy_gateway.rules import Rule
from extproc.gateways.kubernetes.manifests import items_of, made, text_of
from extproc.gateways.kubernetes.type_names import COMPRESSOR, DYNAMIC_MODULE, WASM
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["PROGRAM_FILTERS", "compressors_of", "programs_of"]

# By field of an EnvoyExtensionPolicy the name of the filter and its type, in the order of the filters.
_PROGRAMS: Final = {
    "wasm": ("envoy.filters.http.wasm", WASM),
    "dynamicModule": ("envoy.filters.http.dynamic_modules", DYNAMIC_MODULE),
}
PROGRAM_FILTERS: Final = tuple(name for name, _ in _PROGRAMS.values())
"""What the names of such filters begin with."""


def programs_of(rules: Iterable[Rule]) -> list[LocatedMap]:
    """Return the filters with programs of the policies by which a processor is asked; of others none matters."""
    policies = [each.extensions for each in rules if each.asked]
    return [
        _off(given, f"{name}/{text_of(given, 'name')}".rstrip("/"), kind)
        for field, (name, kind) in _PROGRAMS.items()
        for given in {id(each): each for policy in policies for each in items_of(policy, field)}.values()
    ]


def compressors_of(rules: Iterable[Rule]) -> Iterator[LocatedMap]:
    """Yield a filter for each way in which policies compress responses: routes enable it by its name."""
    given = {name: each for rule in rules for name, each in compressions(rule).items()}
    for name, each in given.items():
        yield _off(each, name, COMPRESSOR)


def _off(given: LocatedMap, name: str, kind: str) -> LocatedMap:
    settings: dict[str, Any] = {"@type": kind}
    return made(given.place, name=name, disabled=True, typed_config=settings)
