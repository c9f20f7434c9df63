"""`dualpool check envoy` on policies of one kind on the same target: Envoy Gateway takes the oldest only."""

from typing import Final

import pytest

from tests.unit.check_envoy_ages import PAIRS
from tests.unit.test_check_envoy_policies import traps

ROUTES: Final = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm%s}"
POLICY: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: %s
metadata: {name: %s, %s}
spec:
  targetRefs: [%s]
  %s
"""
BY_BODY: Final = "extAuth: {http: {backendRefs: [{name: a, port: 80}]}, bodyToExtAuth: {maxRequestBytes: 1000}}"
SMALL: Final = "connection: {bufferLimit: 64Ki}"
WHOLE: Final = """connection: {bufferLimit: 32Mi}
  http2: {initialStreamWindowSize: 16Mi, initialConnectionWindowSize: 64Mi}
  headers: {earlyRequestHeaders: {remove: [x-token-budget-pool, x-token-budget-estimate, x-token-budget-reason]}}
"""


def of_routes(name: str, age: str, spec: str) -> str:
    """Return a SecurityPolicy for our routes."""
    targets = ", ".join(ROUTES % each for each in ("", "-short", "-very-large"))
    return POLICY % ("SecurityPolicy", name, age, targets, spec)


def of_listener(name: str, section: str, spec: str) -> str:
    """Return a ClientTrafficPolicy for a listener."""
    target = f"{{group: gateway.networking.k8s.io, kind: Gateway, name: llm, sectionName: {section}}}"
    return POLICY % ("ClientTrafficPolicy", name, "", target, spec)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("name", "other", "ours", "in_force"), PAIRS)
def test_two_policies_for_the_same_routes(name: str, other: str, ours: str, in_force: bool, first: bool) -> None:  # noqa: FBT001
    """Of the same age, or where that is not known, it is the first by name, wherever it is in the input."""
    policies = [of_routes(name, other, BY_BODY), of_routes("llm", ours, "cors: {}")]
    assert in_force == ("authorized-by-body" in traps(*(policies if first else policies[::-1])))


def test_two_policies_for_the_same_listener() -> None:
    """Only the first is in force, and the other one has no listener of its own."""
    refused, whole = of_listener("b", "http", SMALL), of_listener("a", "http", WHOLE)
    assert traps() == traps(whole, refused) == traps(refused, whole)
    assert "buffer-below-body-cap" in traps(of_listener("a", "http", SMALL), of_listener("b", "http", WHOLE))


def test_policies_of_the_same_name_in_several_namespaces() -> None:
    """Each has filters of its own."""
    other = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: web}
spec: {parentRefs: [{name: llm, namespace: dualpool}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: dualpool, namespace: web}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  extProc: [{backendRefs: [{name: dualpool, port: 9002}], processingMode: {request: {}}}]
"""
    ours = {"metadata: {name: ": "metadata: {namespace: dualpool, name: "}
    assert "duplicate-filter-name" not in traps(other, changes=ours)
