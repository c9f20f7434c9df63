"""`dualpool check envoy` on policies of the Gateways, listeners and ListenerSets that routes are attached to."""

from typing import Final

import pytest

from extproc.gateways.kubernetes.envoy_gateway.rules import Rules
from extproc.gateways.kubernetes.manifests import Manifests
from extproc.gateways.parsing.sources import read
from tests.unit.test_check_envoy_policies import (
    FULL_DUPLEX,
    GUARDED,
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
metadata: {name: more}
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
    """Envoy Gateway rejects it: the first one by name is in force."""
    assert set() == traps(CLIENT)


ON_WEB: Final = traffic("kind: Gateway, name: web")


@pytest.mark.parametrize(
    ("parents", "policies", "found"),
    [
        ("[{name: llm}, {name: web}]", [ON_WEB], True),
        ("[{name: llm}, {name: other}]", [ON_WEB], False),
        # One Gateway's policy is none of the other one's.
        ("[{name: llm}, {name: web}]", [ON_WEB, traffic("kind: Gateway, name: llm", NO_RETRIES, "bare")], True),
        ("[{name: web}, {name: llm}]", [traffic("kind: Gateway, name: llm", NO_RETRIES, "bare"), ON_WEB], True),
    ],
)
def test_a_route_of_two_gateways(parents: str, policies: list[str], found: bool) -> None:  # noqa: FBT001
    """At each of them it has that Gateway's policies."""
    both = {PARENT: f"parentRefs: {parents}"}
    assert found == (RETRIES in traps(*policies, changes={**FULL_DUPLEX, **NO_ROUTE, **both}))


def test_the_router_on_one_of_two_gateways() -> None:
    """A route of both is the router's at the Gateway that the policy is for, and no trap at the other one."""
    refs = "    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}\n"
    short = "    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm-short}\n  extProc:"
    gateway = {refs + short: "    - {group: gateway.networking.k8s.io, kind: Gateway, name: llm}\n  extProc:"}
    both = {PARENT: "parentRefs: [{name: llm}, {name: web}]"}
    assert traps(changes=gateway) == traps(changes={**gateway, **both})


def test_another_processor_on_another_gateway() -> None:
    """The router's filter is not in a Gateway whose routes only others are asked on: it is no trap there."""
    assert set() == traps(GUARDED % "web")


def test_names_of_clusters() -> None:
    """Each rule has a cluster of its own at each Gateway, whatever the names of routes in other namespaces are."""
    route = """
kind: HTTPRoute
metadata: {name: a%s}
spec: {parentRefs: [%s], rules: [{}, {}]}
"""
    routes = [
        route % ("", "{name: llm}"),
        route % (", namespace: shop", "{name: llm}"),
        route % (", namespace: web", "{name: llm}, {name: llm, namespace: web}, {name: b}"),
    ]
    objects = tuple(each for text in routes for each in read(text, "file.yaml"))
    names = [rule.cluster for rule in Rules(Manifests(objects), []).all]
    of_web = ["web/llm/web/a/0", "web/llm/web/a/1", "web/b/web/a/0", "web/b/web/a/1"]
    assert ["a/0", "a/1", "shop/a/0", "shop/a/1", *of_web] == names


BACKEND: Final = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: %s, namespace: %s}
spec: {endpoints: [{fqdn: {hostname: %s, port: 8000}}]}
"""


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("name: vllm-long", False),
        ("name: vllm-long, namespace: shop", True),
        ("name: vllm-long, namespace: web", False),
    ],
)
def test_backends_of_the_same_name(named: str, found: bool) -> None:  # noqa: FBT001
    """A route's Backend is that of its own namespace, unless it names another one."""
    ours = {
        "metadata: {name: llm}": "metadata: {name: llm, namespace: models}",
        "metadata: {name: vllm-long}": "metadata: {name: vllm-long, namespace: models}",
        "name: vllm-long}]": f"{named}}}]",
    }
    others = [
        BACKEND % ("vllm-long", "shop", "vllm-short.dualpool.svc.cluster.local"),
        BACKEND % ("vllm-long", "web", "vllm-web.dualpool.svc.cluster.local"),
    ]
    assert found == ("default-route-not-largest" in traps(*others, changes=ours, first=True))
