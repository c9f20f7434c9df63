"""`dualpool check envoy` on policies of the Gateways, listeners and ListenerSets that routes are attached to."""

from typing import Final

from tests.unit.test_check_envoy_policies import (
    FULL_DUPLEX,
    LONG_POLICY,
    MERGED,
    NO_ROUTE,
    RETRIES,
    traffic,
    traps,
)

PARENT: Final = "parentRefs: [{name: llm}]"
HTTPS: Final = {PARENT: "parentRefs: [{name: llm, sectionName: https}]"}
IN_SET: Final = {PARENT: "parentRefs: [{kind: ListenerSet, name: models}]"}
NO_RETRIES: Final = "timeout: {http: {requestTimeout: 0s}}"
LISTENER_SET: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: %s}
spec: {parentRef: {name: %s}}
"""
CLIENT: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: later}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: llm}]}
"""


def test_a_policy_that_is_merged_into_a_listener_s() -> None:
    """The closest parent's policy is the one that it is merged into."""
    merging = {LONG_POLICY: LONG_POLICY.replace("spec:\n", f"spec:\n  {MERGED}\n")}
    of_listener = traffic("kind: Gateway, name: llm, sectionName: https")
    assert RETRIES in traps(of_listener, changes={**FULL_DUPLEX, **HTTPS, **merging})
    of_gateway = traffic("kind: Gateway, name: llm", name="gateway")
    bare = traffic("kind: Gateway, name: llm, sectionName: https", NO_RETRIES)
    assert RETRIES not in traps(of_gateway, bare, changes={**FULL_DUPLEX, **HTTPS, **merging})


def test_a_policy_of_a_listener_set() -> None:
    """It replaces that of the Gateway for the routes of the ListenerSet."""
    of_gateway = traffic("kind: Gateway, name: llm")
    of_set = traffic("kind: ListenerSet, name: models", NO_RETRIES, name="set")
    changes = {**FULL_DUPLEX, **NO_ROUTE, **IN_SET}
    assert RETRIES in traps(LISTENER_SET % ("models", "llm"), of_gateway, changes=changes)
    assert RETRIES not in traps(LISTENER_SET % ("models", "llm"), of_gateway, of_set, changes=changes)


def test_a_listener_set_with_the_name_of_a_gateway() -> None:
    """A route of the Gateway has nothing of the ListenerSet's."""
    of_web = traffic("kind: Gateway, name: web")
    assert RETRIES not in traps(LISTENER_SET % ("llm", "web"), of_web, changes={**FULL_DUPLEX, **NO_ROUTE})


def test_a_gateway_of_the_same_name_in_another_namespace() -> None:
    """A route is attached to a Gateway of its own namespace unless it names another one."""
    ours = {**FULL_DUPLEX, **NO_ROUTE, "metadata: {name: llm}": "metadata: {name: llm, namespace: models}"}
    policy = traffic("kind: Gateway, name: llm", namespace="shop")
    assert RETRIES not in traps(policy, changes=ours)
    named = {PARENT: "parentRefs: [{name: llm, namespace: shop}]"}
    assert RETRIES in traps(policy, changes={**ours, **named})


def test_a_second_policy_for_the_clients_of_a_gateway() -> None:
    """Envoy Gateway rejects it: the first one is in force."""
    assert set() == traps(CLIENT)
