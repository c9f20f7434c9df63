"""The filters of SecurityPolicies, before those of the processors but for that of authorization rules.

Source: Envoy Gateway's `internal/xds/translator`, `httpfilters.go` for their order.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from extproc.gateways.kubernetes.manifests import inner, items_of, made, number_of
from extproc.gateways.kubernetes.type_names import (
    API_KEY_AUTH,
    BASIC_AUTH,
    CORS,
    EXT_AUTHZ,
    JWT_AUTHN,
    OAUTH2,
    RBAC,
)
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["AUTHORIZATION", "GUARDS", "guards_of", "names_of"]


def _nothing(_: LocatedMap) -> dict[str, Any]:
    return {}


def _with_body(given: LocatedMap) -> dict[str, Any]:
    """Return what is sent of bodies: whole ones, since there is no setting for the beginning."""
    body = inner(given, "bodyToExtAuth")
    return (
        {"with_request_body": made(body.place, max_request_bytes=number_of(body, "maxRequestBytes", 0))}
        if body
        else {}
    )


def _with_keys(given: LocatedMap) -> dict[str, Any]:
    """Return whether a provider's keys are fetched, for which requests may wait."""
    fetched = [each for each in items_of(given, "providers") if "remoteJWKS" in each]
    return {"providers": {str(at): {"remote_jwks": {}} for at, _ in enumerate(fetched)}}


_PREFIX: Final = "envoy.filters.http."
AUTHORIZATION: Final = _PREFIX + "rbac"
# By field of a policy its filter, with the part of its settings that matters here, in the order of the filters.
_FILTERS: Final[dict[str, tuple[str, str, Callable[[LocatedMap], dict[str, Any]]]]] = {
    "cors": (_PREFIX + "cors", CORS, _nothing),
    "extAuth": (_PREFIX + "ext_authz", EXT_AUTHZ, _with_body),
    "apiKeyAuth": (_PREFIX + "api_key_auth", API_KEY_AUTH, _nothing),
    "basicAuth": (_PREFIX + "basic_auth", BASIC_AUTH, _nothing),
    "oidc": (_PREFIX + "oauth2", OAUTH2, _nothing),
    "jwt": (_PREFIX + "jwt_authn", JWT_AUTHN, _with_keys),
    "authorization": (AUTHORIZATION, RBAC, _nothing),
}
GUARDS: Final = tuple(name for name, _, _ in _FILTERS.values())
"""What the names of such filters begin with."""


def names_of(policy: LocatedMap) -> list[str]:
    """Return the names of a policy's filters."""
    return [_name(field, inner(policy, field)) for field in _FILTERS if field in policy]


def guards_of(policies: Iterable[LocatedMap]) -> list[LocatedMap]:
    """Return the filters of these policies in their order; routes enable them by their names."""
    policies = list(policies)
    found: dict[str, LocatedMap] = {}
    for field, (_, kind, settings) in _FILTERS.items():
        for given in (inner(policy, field) for policy in policies if field in policy):
            name = _name(field, given)
            config = {"@type": kind, **settings(given)}
            found.setdefault(name, made(given.place, name=name, disabled=True, typed_config=config))
    return list(found.values())


def _name(field: str, given: LocatedMap) -> str:
    """Return the name of a filter: one for each policy, or one of a kind for all, which routes configure."""
    name = _FILTERS[field][0]
    return f"{name}/{given.place}" if field in {"extAuth", "basicAuth"} else name
