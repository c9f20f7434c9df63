"""`dualpool check envoy` on the listeners of Envoy Gateway's Gateways: their hosts, and what they answer."""

from typing import Final

import pytest

from tests.unit.test_check_envoy_policies import traps

GATEWAY: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: llm}
spec: {gatewayClassName: eg, listeners: [%s]}
"""
REDIRECT: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: to-https}
spec:
  parentRefs: [{name: llm, sectionName: http}]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]
"""
GUARD: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: guard}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: llm, sectionName: %s}]
  extProc: [{backendRefs: [{name: guard, port: 9000}], processingMode: {request: {}}}]
"""
PARENTS: Final = "parentRefs: [{name: llm}]"
TARGETS: Final = """    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-short}
"""
EVERYWHERE: Final = {TARGETS: "    - {group: gateway.networking.k8s.io, kind: Gateway, name: llm}\n"}
# Of the routes on which the router is not to be asked then, and of a listener that our patch does not name.
ON_ALL: Final = {"buffer-below-body-cap", "upgrade-hangs", "head-limits"}
POOL: Final = "metadata: {name: llm-short}\nspec:\n"
SPLIT: Final = {"default-route-not-largest", "pool-without-route"}


def test_a_listener_that_redirects_to_https() -> None:
    """A policy of the whole Gateway has the router asked there, too, but no request is sent on."""
    gateway = GATEWAY % "{name: http, port: 80, protocol: HTTP}, {name: https, port: 443, protocol: HTTPS}"
    secure = {PARENTS: "parentRefs: [{name: llm, sectionName: https}]"}
    assert ON_ALL == traps(gateway, changes={**secure, **EVERYWHERE})
    assert ON_ALL == traps(gateway, REDIRECT, changes={**secure, **EVERYWHERE})


@pytest.mark.parametrize(
    ("its", "of_pool", "found"),
    [
        ("llm.example.com", "llm.example.com", set()),
        ("llm.example.com", "*.example.com", set()),
        ("*.example.com", "*.com", set()),
        ("*.example.com", "llm.example.com", SPLIT),
        ("", "llm.example.com", SPLIT),
    ],
)
def test_routes_with_and_without_a_host(its: str, of_pool: str, found: set[str]) -> None:
    """A route that names no host has the listener's, and one that names more than that has no other, either."""
    gateway = GATEWAY % f"{{name: http, port: 80, protocol: HTTP, hostname: '{its}'}}"
    named = {POOL: f"{POOL}  hostnames: ['{of_pool}']\n"}
    assert found == traps(gateway, changes=named)


@pytest.mark.parametrize(
    ("port", "found"), [(80, {"pool-without-route"}), (8080, {"pool-without-route", "default-route-not-largest"})]
)
def test_a_host_of_another_listener_of_the_port(port: int, found: set[str]) -> None:
    """It is that one's, with all of its routes: at the listener for all hosts only the default route is left."""
    its = f"{{name: llm, port: {port}, protocol: HTTP, hostname: llm.example.com}}"
    gateway = GATEWAY % f"{{name: http, port: 80, protocol: HTTP}}, {its}"
    named = {POOL: f"{POOL}  hostnames: [llm.example.com]\n"}
    assert found == traps(gateway, changes=named) - {"head-limits"}


@pytest.mark.parametrize(("section", "found"), [("https", ON_ALL - {"head-limits"}), ("other", ON_ALL)])
def test_a_policy_of_one_listener(section: str, found: set[str]) -> None:
    """It replaces the Gateway's there alone: the router is asked at the other one, whose routes are the same."""
    gateway = GATEWAY % "{name: http, port: 80, protocol: HTTP}, {name: https, port: 443, protocol: HTTPS}"
    assert found == traps(gateway, GUARD % section, changes=EVERYWHERE)
