"""`dualpool check envoy` on Envoy Gateway's SecurityPolicies: which of their filters do harm, and where."""

from typing import Final

import pytest

from extproc.gateways.inputs import read_gateways
from extproc.gateways.parsing.sources import read
from extproc.gateways.router import Router
from tests.unit.test_check_envoy_gateway_order import position, proxied
from tests.unit.test_check_envoy_manifests import DEPLOYED, ROOT
from tests.unit.test_check_envoy_policies import FULL_DUPLEX, MERGED, traps

ROUTE: Final = "kind: HTTPRoute, name: llm"
BY_BODY: Final = "authorized-by-body"
WAITING: Final = "waiting-filter-after"
SERVICE: Final = "grpc: {backendRefs: [{name: authz, port: 9001}]}"
KEYS: Final = "jwt: {providers: [{name: a, issuer: https://a, %s}]}"
FETCHED: Final = KEYS % "remoteJWKS: {uri: https://a/keys}"
GIVEN: Final = KEYS % "localJWKS: {type: Inline, inline: '{}'}"
RULES: Final = "authorization: {defaultAction: Deny, rules: []}"


def security(spec: str, target: str = ROUTE, name: str = "guard") -> str:
    """Return a SecurityPolicy."""
    return f"""
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]
  {spec}
"""


def by_body(size: int) -> str:
    """Return the settings of an authorization service that gets bodies of up to this size."""
    return f"extAuth: {{{SERVICE}, bodyToExtAuth: {{maxRequestBytes: {size}}}}}"


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        ([security(by_body(8_192))], {BY_BODY}),
        ([security(by_body(1_048_576))], set()),
        ([security(f"extAuth: {{{SERVICE}}}")], set()),
        ([security(by_body(8_192), "kind: Gateway, name: llm")], {BY_BODY}),
        ([security(by_body(8_192), "kind: Gateway, name: web")], set()),
        ([security(by_body(8_192), "kind: HTTPRoute, name: llm-very-large-body")], set()),
        (
            [
                security(by_body(8_192), "kind: Gateway, name: llm", "all"),
                *(
                    security(f"extAuth: {{{SERVICE}}}", f"kind: HTTPRoute, name: {name}")
                    for name in ("llm", "llm-short")
                ),
            ],
            set(),
        ),
        (
            [
                security(by_body(8_192), "kind: Gateway, name: llm", "all"),
                security(f"{MERGED}\n  cors: {{allowOrigins: ['*']}}"),
            ],
            {BY_BODY},
        ),
    ],
)
def test_bodies_for_an_authorization_service(policies: list[str], found: set[str]) -> None:
    """A service that is to see bodies keeps long prompts from all pools, if its policy is in force on a route."""
    assert found == traps(*policies)


@pytest.mark.parametrize("settings", ["basicAuth: {}", "apiKeyAuth: {}", "cors: {}", "oidc: {}", GIVEN, FETCHED])
def test_filters_before_the_router_s(settings: str) -> None:
    """They come before it, where they do no harm in any mode."""
    assert set() == traps(security(settings))
    assert WAITING not in traps(security(settings), changes=FULL_DUPLEX)


@pytest.mark.parametrize(
    ("settings", "name", "found"),
    [
        (f"extAuth: {{{SERVICE}}}", "ext_authz", True),
        ("oidc: {}", "oauth2", True),
        (FETCHED, "jwt_authn", True),
        (GIVEN, "jwt_authn", False),
        ("basicAuth: {}", "basic_auth", False),
        ("cors: {}", "cors", False),
    ],
)
def test_filters_that_an_order_puts_behind_the_router_s(settings: str, name: str, found: bool) -> None:  # noqa: FBT001
    """In full duplex those that wait for a server cut bodies there; all authentication comes too late."""
    order = proxied(position(name, "after", "ext_proc"))
    assert found == (WAITING in traps(security(settings), *order, changes=FULL_DUPLEX))
    assert (name != "cors") == ("auth-after" in traps(security(settings), *order))


def test_authorization_rules() -> None:
    """Envoy Gateway checks them after the router's filter, unless an EnvoyProxy moves them before it."""
    assert {"auth-after"} == traps(security(RULES))
    assert set() == traps(security(RULES, "kind: HTTPRoute, name: llm-very-large-body"))
    assert set() == traps(security(RULES), *proxied(position("rbac", "before", "ext_proc")))


def test_a_limit_that_is_no_number() -> None:
    """It is a sentence, with its place."""
    with pytest.raises(Exception, match="maxRequestBytes is not a whole number"):
        traps(security("extAuth: {bodyToExtAuth: {maxRequestBytes: 8Ki}}"))


@pytest.mark.parametrize(
    ("settings", "name", "number"),
    [
        ("basicAuth: {users: {name: a}}", "basic_auth", 2),
        (f"extAuth: {{{SERVICE}}}", "ext_authz", 2),
        ("oidc: {}", "oauth2", 1),
        ("apiKeyAuth: {}", "api_key_auth", 1),
        (FETCHED, "jwt_authn", 1),
        (RULES, "rbac", 1),
    ],
)
def test_filters_of_two_policies(settings: str, name: str, number: int) -> None:
    """Some filters cannot be configured for each route: each policy has one of its own."""
    policies = [security(settings), security(settings, "kind: HTTPRoute, name: llm-very-large-body", "other")]
    texts = [path.read_text("utf-8") for each in DEPLOYED["envoy gateway"] for path in sorted(ROOT.glob(each))]
    documents = [each for at, text in enumerate([*texts, *policies]) for each in read(text, str(at))]
    (gateway,) = read_gateways(documents, Router()).gateways
    assert number == len([each for each in gateway.filters if name in each.name])


def test_two_services() -> None:
    """Each policy has a filter of its own, of which only the one on the router's route counts."""
    other = security(by_body(1_024), "kind: HTTPRoute, name: llm-very-large-body", "other")
    texts = [path.read_text("utf-8") for each in DEPLOYED["envoy gateway"] for path in sorted(ROOT.glob(each))]
    documents = [
        each for at, text in enumerate([*texts, security(by_body(1 << 20)), other]) for each in read(text, str(at))
    ]
    (gateway,) = read_gateways(documents, Router()).gateways
    names = [each.name for each in gateway.filters if "ext_authz" in each.name]
    assert 2 == len(set(names)) == len(names)
    caps = {route.name: route.authorization_cap for host in gateway.hosts for route in host.routes}
    assert {"llm": 1 << 20, "llm-very-large-body": 1_024} == {
        name: cap.limit_bytes for name, cap in caps.items() if cap
    }
