"""`dualpool check envoy` on HTTPRoutes of Envoy Gateway that are equally specific: the oldest comes first."""

from typing import Final

import pytest

from tests.unit.check_envoy_ages import PAIRS
from tests.unit.test_check_envoy_policies import traps

OTHER: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, %s}
spec: {parentRefs: [{name: llm}], rules: [{backendRefs: [{name: web, port: 80}]}]}
"""


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("name", "other", "ours", "hidden"), PAIRS)
def test_two_routes_for_everything(name: str, other: str, ours: str, hidden: bool, first: bool) -> None:  # noqa: FBT001
    """Of the same age, or where that is not known, it is the first by name, wherever it is in the input.

    One that is not in the cluster yet will be younger than those that are.
    """
    changes = {
        "metadata: {name: llm}\nspec:\n  parentRefs": f"metadata: {{name: llm, {ours}}}\nspec:\n  parentRefs"
    }
    assert hidden == bool(traps(OTHER % (name, other), changes=changes, first=first))
