"""Routing in every mode, for every API and kind of response, through the real Envoy with the real clients."""

import pytest

from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import CALLS, LONG_TEXT, SHORT_TEXT, Call, chat
from tests.envoy.harness.polling import eventually


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_goes_where_its_budget_fits_and_teaches(caller: Caller, call: Call) -> None:
    """Short requests go to the short pool, long ones to the long pool; the router learns from both responses."""
    served = [call(caller, text)["x-served-by"] for text in (SHORT_TEXT, LONG_TEXT)]
    assert ["short", "long"] == served
    eventually(lambda: caller.observations() == 2, "two observations of this tenant")


def test_the_pool_and_the_access_log_get_the_decision(caller: Caller) -> None:
    """Pool requests and the access log have estimate and reason; only the short pool gets the pool header."""
    chat(caller, SHORT_TEXT)
    chat(caller, LONG_TEXT)
    headers = {name: request.headers for name, request in caller.received()}
    assert ("short", "fits") == (
        headers["short"]["x-token-budget-pool"],
        headers["short"]["x-token-budget-reason"],
    )
    assert (None, "too_long") == (
        headers["long"].get("x-token-budget-pool"),
        headers["long"]["x-token-budget-reason"],
    )
    short, long = caller.access_log(2)
    seen = [(e["route"], e["pool"], e["reason"], e["mode"], e["status"], e["attempts"]) for e in (short, long)]
    assert seen == [
        ("short", "short", "fits", "enforce", 200, 1),
        ("long", "long", "too_long", "enforce", 200, 1),
    ]
    estimates = [int(headers[name]["x-token-budget-estimate"]) for name in ("short", "long")]
    assert estimates == [short["estimate"], long["estimate"]]
    assert estimates[0] <= 2048 < estimates[1]
    assert short["code_details"] == "via_upstream"
    # Envoy's own filter state: latency and status of the request headers, and the cluster that was asked.
    assert short["ext_proc"].startswith("rh:")
    assert short["ext_proc"].endswith("ds:dualpool")


def test_client_sees_how_often_its_request_was_tried(caller: Caller) -> None:
    """Every response has the attempt count, from which the router detects retries."""
    assert "1" == chat(caller, SHORT_TEXT)["x-envoy-attempt-count"]
