"""The retries of the routes that Istio generates: a VirtualService's or an HTTPRoute's own, or else the mesh's.

Source: Istio's `networking/core/route/retry`, and `config/kube/gateway` for the Gateway API.
"""

from typing import Final

from extproc.gateways.kubernetes.istio.mesh import meshes_of
from extproc.gateways.kubernetes.manifests import (
    Manifests,
    inner,
    made,
    number_of,
    optional_seconds,
    text_of,
    texts_of,
)
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["mesh_retries", "retry_of_http_route", "retry_of_virtual_service"]

# Defaults of Istio 1.31, for a route and a mesh that say nothing.
RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled"
STATUSES: Final = "retriable-status-codes"
ATTEMPTS: Final = 2
_STATUS_DIGITS: Final = 3


def mesh_retries(manifests: Manifests) -> LocatedMap | None:
    """Return the retries of routes that do not mention any, if the input has the mesh's settings and they do."""
    for each in meshes_of(manifests):
        if "defaultHttpRetryPolicy" in each:
            return inner(each, "defaultHttpRetryPolicy")
    return None


def retry_of_virtual_service(rule: LocatedMap, of_mesh: LocatedMap | None) -> LocatedMap | None:
    """Return Envoy's retry policy for a VirtualService's rule; None if it has none."""
    return _policy(inner(rule, "retries") if "retries" in rule else of_mesh, rule)


def retry_of_http_route(rule: LocatedMap, of_mesh: LocatedMap | None) -> LocatedMap | None:
    """Return Envoy's retry policy for an HTTPRoute's rule; None if it has none."""
    if "retry" not in rule:
        return _policy(of_mesh, rule)
    retry = inner(rule, "retry")
    conditions = ",".join([RETRY_ON, *texts_of(retry, "codes")])
    said = {"attempts": number_of(retry, "attempts", ATTEMPTS), "retryOn": conditions}
    timeout = text_of(inner(rule, "timeouts"), "backendRequest")
    return _policy(made(retry.place, **said, perTryTimeout=timeout or None), rule)


def _policy(given: LocatedMap | None, rule: LocatedMap) -> LocatedMap | None:
    """Return the policy for retries as a VirtualService has them, or for Istio's defaults if nothing is given."""
    if given is None:
        return made(rule.place, retry_on=f"{RETRY_ON},{STATUSES}", num_retries=ATTEMPTS)
    attempts = number_of(given, "attempts", 0)
    if attempts == 0:
        return None
    words = [word for each in text_of(given, "retryOn").split(",") if (word := each.strip())]
    codes = [word for word in words if word.isdecimal() and len(word) == _STATUS_DIGITS]
    words = [word for word in words if word not in codes] if words else [RETRY_ON, STATUSES]
    if codes:
        words.append(STATUSES)
    return made(
        given.place,
        retry_on=",".join(words),
        retriable_status_codes=[int(code) for code in codes],
        num_retries=attempts,
        per_try_timeout=optional_seconds(given, "perTryTimeout"),
    )
