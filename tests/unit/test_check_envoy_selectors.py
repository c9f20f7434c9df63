"""`dualpool check envoy` on policies of Envoy Gateway that select their targets by labels."""

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
    """Of two policies for a route the first one is in force, however they name it."""
    selector = "  targetSelectors: [{kind: HTTPRoute, matchLabels: {team: llm}}]\n"
    policy = traffic("kind: HTTPRoute, name: nowhere").replace("  targetRefs", f"{selector}  targetRefs")
    labelled = {"metadata: {name: llm}": "metadata: {name: llm, labels: {team: llm}}"}
    assert RETRIES in traps(policy, changes={**FULL_DUPLEX, **labelled}, first=True)
    assert RETRIES not in traps(policy, changes={**FULL_DUPLEX, **labelled})
