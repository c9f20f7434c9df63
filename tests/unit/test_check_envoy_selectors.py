"""`dualpool check envoy` on policies of Envoy Gateway that select their targets by labels."""

from typing import Final

import pytest

from tests.unit.test_check_envoy_policies import FULL_DUPLEX, NO_ROUTE, RETRIES, traffic, traps


@pytest.mark.parametrize(
    ("expression", "selects"),
    [
        ("{key: team, operator: In, values: [a, llm]}", True),
        ("{key: team, operator: In, values: [a]}", False),
        ("{key: other, operator: In, values: [llm]}", False),
        ("{key: team, operator: NotIn, values: [a]}", True),
        ("{key: team, operator: NotIn, values: [llm]}", False),
        ("{key: other, operator: NotIn, values: [llm]}", True),
        ("{key: team, operator: Exists}", True),
        ("{key: other, operator: Exists}", False),
        ("{key: team, operator: DoesNotExist}", False),
        ("{key: other, operator: DoesNotExist}", True),
        ("{key: team, operator: Exists}, {key: other, operator: Exists}", False),
    ],
)
def test_expressions_on_labels(expression: str, selects: bool) -> None:  # noqa: FBT001
    """A selector takes the routes for which all of its expressions hold."""
    selector = f"  targetSelectors: [{{kind: HTTPRoute, matchExpressions: [{expression}]}}]\n"
    policy = traffic("kind: HTTPRoute, name: nowhere").replace("  targetRefs", f"{selector}  targetRefs")
    labelled = {"metadata: {name: llm}": "metadata: {name: llm, labels: {team: llm}}"}
    assert selects == (RETRIES in traps(policy, changes={**FULL_DUPLEX, **labelled}, first=True))


def test_a_selector_of_gateways() -> None:
    """Which Gateways it takes cannot be told from routes, so it takes ours; a route's own policy is closer."""
    selector = "  targetSelectors: [{kind: Gateway, matchLabels: {team: llm}}]\n"
    policy = traffic("kind: HTTPRoute, name: nowhere").replace("  targetRefs", f"{selector}  targetRefs")
    assert RETRIES in traps(policy, changes={**FULL_DUPLEX, **NO_ROUTE}, first=True)
    assert RETRIES not in traps(policy, changes=FULL_DUPLEX, first=True)


def test_a_selector_is_as_close_as_a_name() -> None:
    """Of two policies for a route the first one by name is in force, however they name it."""
    selector = "  targetSelectors: [{kind: HTTPRoute, matchLabels: {team: llm}}]\n"
    first, second = (
        traffic("kind: HTTPRoute, name: nowhere", name=name).replace("  targetRefs", f"{selector}  targetRefs")
        for name in ("all", "more")
    )
    labelled = {"metadata: {name: llm}": "metadata: {name: llm, labels: {team: llm}}"}
    assert RETRIES in traps(first, changes={**FULL_DUPLEX, **labelled})
    assert RETRIES not in traps(second, changes={**FULL_DUPLEX, **labelled})


NAMESPACE: Final = """
apiVersion: v1
kind: Namespace
metadata: {name: models, labels: {team: %s}}
"""
GATEWAY: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: %s, labels: {team: %s}}
spec: {gatewayClassName: eg}
"""


def selecting(selector: str, namespace: str) -> str:
    """Return a policy for what a selector takes."""
    policy = traffic("kind: HTTPRoute, name: nowhere", namespace=namespace)
    return policy.replace("  targetRefs", f"  targetSelectors: [{{{selector}}}]\n  targetRefs")


@pytest.mark.parametrize(
    ("namespaces", "labels", "selects"),
    [
        ("", "llm", False),
        ("namespaces: {from: Same},", "llm", False),
        ("namespaces: {from: All},", "llm", True),
        ("namespaces: {from: Selector, selector: {matchLabels: {team: llm}}},", "llm", True),
        ("namespaces: {from: Selector, selector: {matchLabels: {team: llm}}},", "web", False),
        ("namespaces: {from: Selector, selector: {matchLabels: {team: llm}}},", "", True),  # they are not known
    ],
)
@pytest.mark.parametrize("kind", ["HTTPRoute", "Gateway"])
def test_a_selector_for_other_namespaces(kind: str, namespaces: str, labels: str, selects: bool) -> None:  # noqa: FBT001
    """A policy selects in its own namespace, unless it says in which ones."""
    policy = selecting(f"kind: {kind}, {namespaces} matchLabels: {{}}", "shop")
    ours = {**FULL_DUPLEX, **NO_ROUTE, "metadata: {name: llm}": "metadata: {name: llm, namespace: models}"}
    objects = [policy, NAMESPACE % labels] if labels else [policy]
    assert selects == (RETRIES in traps(*objects, changes=ours, first=True))


@pytest.mark.parametrize(
    ("gateway", "selects"),
    [
        (("llm", "models", "llm"), True),
        (("llm", "models", "web"), False),
        (("llm", "shop", "web"), True),  # another Gateway
        (("web", "models", "web"), True),
    ],
)
def test_a_selector_of_a_gateway_whose_labels_are_known(gateway: tuple[str, str, str], selects: bool) -> None:  # noqa: FBT001
    """If the Gateway is in the input, its labels decide."""
    policy = selecting("kind: Gateway, matchLabels: {team: llm}", "models")
    ours = {**FULL_DUPLEX, **NO_ROUTE, "metadata: {name: llm}": "metadata: {name: llm, namespace: models}"}
    assert selects == (RETRIES in traps(policy, GATEWAY % gateway, changes=ours, first=True))
