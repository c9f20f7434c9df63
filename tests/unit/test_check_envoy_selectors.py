"""`dualpool check envoy` on policies of Envoy Gateway that select their targets by labels."""

import pytest

from tests.unit.test_check_envoy_policies import FULL_DUPLEX, RETRIES, traffic, traps


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
