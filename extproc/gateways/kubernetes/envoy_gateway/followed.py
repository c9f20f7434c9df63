"""Which JSON patches of EnvoyPatchPolicies can be followed in our translation of a listener, and where there.

An index may mean something else than here: what it is the index of, is not all known. So only those of the one
virtual host, and of filters where no others are inserted, are followed; and the two ends of the filters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.pointers import Steps, steps_to
from extproc.gateways.kubernetes.manifests import Manifests, inner, items_of, text_of, texts_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["CLUSTER", "FILTERS", "LISTENER", "ROUTES", "Sure", "chain_of", "kind_of", "steps_of", "sure_of"]

LISTENER: Final = "Listener"
ROUTES: Final = "RouteConfiguration"
CLUSTER: Final = "Cluster"
_DEFAULT: Final = "default_filter_chain"
MANAGER: Final = ("filter_chains", "0", "filters", "0", "typed_config")
FILTERS: Final = (*MANAGER, "http_filters")
"""Where our translation has them."""
_TABLE: Final = (*MANAGER, "route_config")
_HOST: Final = ("virtual_hosts", "0")
_OPERATIONS: Final = ("add", "replace", "remove")

# Fields of policies for which filters are inserted that our translation does not have, by kind of policy.
# Source: the files of Envoy Gateway's `internal/xds/translator` with a `patchHCM`.
_UNKNOWN: Final = {
    "BackendTrafficPolicy": ("admissionControl", "bandwidthLimit", "faultInjection", "responseOverride"),
    "ClientTrafficPolicy": ("grpc", "healthCheck"),
    "EnvoyExtensionPolicy": ("lua",),
    "EnvoyProxy": ("geoIP",),
    "SecurityPolicy": ("csrf",),
}
_BRING_FILTERS: Final = ("GRPCRoute", "HTTPRouteFilter")
_CORS: Final = "CORS"
_DYNAMIC: Final = "DynamicResolver"


@dataclass(frozen=True, slots=True)
class Sure:
    """What is certain of the positions in lists, given all objects of the input."""

    filters: bool
    host: bool
    """There is one virtual host."""
    manager: str
    """The position of the connection manager in a filter chain, "" if it is not known."""


def sure_of(manifests: Manifests) -> Sure:
    """Return what is certain, whichever Gateway an object is for."""
    names = [
        name for each in manifests.of("HTTPRoute") for name in texts_of(inner(each, "spec"), "hostnames") or [""]
    ]
    return Sure(
        filters=not any(manifests.of(*_BRING_FILTERS)) and not any(_bring_filters(manifests)),
        host=len(set(names)) == 1,
        manager=_position_of_manager(manifests),
    )


def _position_of_manager(manifests: Manifests) -> str:
    """Return it: there is a filter before it where a policy limits the number of connections."""
    limits = (inner(each, "spec", "connection", "connectionLimit") for each in manifests.of("ClientTrafficPolicy"))
    limited = {"value" in each for each in limits}
    return "" if len(limited) > 1 else "1" if True in limited else "0"


def kind_of(patch: LocatedMap) -> str:
    """Return the kind of Envoy's resources that is patched."""
    return text_of(patch, "type").rpartition(".")[2]


def steps_of(patch: LocatedMap, sure: Sure) -> Steps | None:
    """Return where a listener's configuration is patched, () for a cluster that is added; None if not known."""
    operation, kind = inner(patch, "operation"), kind_of(patch)
    path, op = text_of(operation, "path"), text_of(operation, "op")
    if op not in _OPERATIONS or "jsonPath" in operation:
        return None
    if kind == CLUSTER:
        return () if op == "add" and not path else None
    steps = steps_to(path)
    if not all(steps):
        return None
    if kind == ROUTES:
        known = not _has_index(steps[2:] if sure.host and steps[:2] == _HOST else steps)
        return (*_TABLE, *steps) if known else None
    chain = chain_of(steps)
    if chain:
        inside = steps[len(chain) :]
        steps = (*MANAGER, *inside[3:]) if inside[:3] == ("filters", sure.manager, "typed_config") else MANAGER[:1]
    return steps if kind == LISTENER and _is_known(steps, op, sure) else None


def chain_of(steps: Steps) -> Steps:
    """Return the steps to a filter chain with which a path in a listener begins, () if it does not."""
    return steps[: {_DEFAULT: 1, MANAGER[0]: 2}.get(steps[0], 0)]


def _is_known(steps: Steps, op: str, sure: Sure) -> bool:
    at = len(FILTERS)
    if steps[:at] == FILTERS and len(steps) > at:
        first = steps[at:] in {("0",), ("-",)} and op == "add"
        return (first or (sure.filters and steps[at].isdecimal())) and not _has_index(steps[at + 1 :])
    inside = steps[: len(MANAGER)] == MANAGER and len(steps) > len(MANAGER)
    rest = steps[len(MANAGER) :] if inside else steps
    return (inside or steps[0] != MANAGER[0]) and not _has_index(rest)


def _has_index(steps: Steps) -> bool:
    return any(each == "-" or each.isdecimal() for each in steps)


def _bring_filters(manifests: Manifests) -> Iterator[bool]:
    for kind, fields in _UNKNOWN.items():
        for spec in (inner(each, "spec") for each in manifests.of(kind)):
            yield any(field in spec for field in fields)
            yield "local" in inner(spec, "rateLimit") or "lateResponseHeaders" in inner(spec, "headers")
    yield any(text_of(inner(each, "spec"), "type") == _DYNAMIC for each in manifests.of("Backend"))
    for rule in (rule for each in manifests.of("HTTPRoute") for rule in items_of(inner(each, "spec"), "rules")):
        yield "sessionPersistence" in rule or any(each.get("type") == _CORS for each in items_of(rule, "filters"))
