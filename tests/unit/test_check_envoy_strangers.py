"""`dualpool check envoy` on what Envoy accepts from whatever answers on the router's address."""

from pathlib import Path
from typing import Any

import pytest

from extproc.gateways.kubernetes.envoy_gateway.processors import FILTERS_OF_POLICIES
from tests.envoy.harness.gateway import ext_proc, load
from tests.traps.finding import found_in, names_in

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(
    ("change", "trusted"),
    [
        ({}, False),
        ({"disable_immediate_response": False}, True),
        ({"mutation_rules": {}}, True),
        ({"mutation_rules": {"allow_expression": {"regex": "x-token-budget-.*"}}}, True),
        ({"mutation_rules": {"disallow_all": True, "allow_expression": {"regex": ".*"}}}, True),
        ({"mutation_rules": {"disallow_all": True, "allow_expression": {"regex": "x-token-.*"}}}, False),
    ],
)
def test_each_setting_alone_leaves_a_stranger_something(change: dict[str, Any], *, trusted: bool) -> None:
    """Responses are refused by one setting, headers by another, and an expression alone allows everything else."""
    document = load("streamed")
    ext_proc(document).update(change)
    assert (names_in(document) == {"stranger-trusted"}) == trusted


def test_filters_of_envoy_gateway_s_policies_are_not_reported() -> None:
    """Its policies have no setting for it, so what it generates from them, by these names, cannot be mended."""
    generated = (GOLDEN / "envoy-gateway" / "xds.json").read_text()
    assert f'"name": "{FILTERS_OF_POLICIES}dualpool/dualpool/' in generated
    assert "disable_immediate_response" not in generated
    assert "stranger-trusted" not in {each.trap.name for each in found_in(generated)}
    other = generated.replace(FILTERS_OF_POLICIES, "own/")
    assert "stranger-trusted" in {each.trap.name for each in found_in(other)}
