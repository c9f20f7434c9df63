"""`dualpool check envoy` on conditions on the pool's header; tests/envoy asks a real Envoy about the same ones."""

from typing import Any

import pytest

from tests.envoy.harness.gateway import load
from tests.traps.finding import names_in
from tests.traps.header_conditions import ABSENT, SHORT, arriving_on, reached_by


@pytest.mark.parametrize(("condition", "matches"), ABSENT.values(), ids=ABSENT)
def test_a_default_route_that_needs_the_header(condition: dict[str, Any], matches: bool) -> None:  # noqa: FBT001
    """Requests arrive without it: unless the condition matches those, they are a 404."""
    document = load("streamed")
    arriving_on(document, condition)
    assert (set() if matches else {"default-route-not-largest"}) == names_in(document)


@pytest.mark.parametrize(("condition", "matches"), SHORT.values(), ids=SHORT)
def test_conditions_of_another_age(condition: dict[str, Any], matches: bool) -> None:  # noqa: FBT001
    """The fields that string_match has replaced are read, too: Envoy still accepts them."""
    document = load("streamed")
    reached_by(document, condition)
    assert (set() if matches else {"pool-without-route"}) == names_in(document)
