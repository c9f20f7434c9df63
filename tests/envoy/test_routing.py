"""The right pool for every mode, API and kind of response, through the real Envoy with the real clients."""

import pytest

from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import CALLS, LONG_TEXT, SHORT_TEXT, Call, chat
from tests.envoy.harness.polling import eventually


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_goes_where_its_budget_fits_and_teaches(caller: Caller, call: Call) -> None:
    """A short request goes to the short pool, a long one to the long pool, and both responses teach the router."""
    served = [call(caller, text)["x-served-by"] for text in (SHORT_TEXT, LONG_TEXT)]
    assert ["short", "long"] == served
    eventually(lambda: caller.observations() == 2, "two observations of this tenant")


def test_what_the_pool_and_the_access_log_are_told(caller: Caller) -> None:
    """Estimate and reason are on the request to the pool and in the access log; the pool header only on short."""
    chat(caller, SHORT_TEXT)
    chat(caller, LONG_TEXT)
    told = {name: request.headers for name, request in caller.received()}
    assert ("short", "fits") == (told["short"]["x-token-budget-pool"], told["short"]["x-token-budget-reason"])
    assert (None, "too_long") == (told["long"].get("x-token-budget-pool"), told["long"]["x-token-budget-reason"])
    short, long = caller.access_log(2)
    seen = [(e["route"], e["pool"], e["reason"], e["mode"], e["status"], e["attempts"]) for e in (short, long)]
    assert seen == [
        ("short", "short", "fits", "enforce", 200, 1),
        ("long", "long", "too_long", "enforce", 200, 1),
    ]
    estimates = [int(told[name]["x-token-budget-estimate"]) for name in ("short", "long")]
    assert estimates == [short["estimate"], long["estimate"]]
    assert estimates[0] <= 2048 < estimates[1]
    assert short["code_details"] == "via_upstream"
    # Envoy's own figures on the filter: request headers' latency and status, the cluster that was asked.
    assert short["ext_proc"].startswith("rh:")
    assert short["ext_proc"].endswith("ds:dualpool")


def test_client_sees_how_often_its_request_was_tried(caller: Caller) -> None:
    """The attempt count, which the router reads repairs from, is on every response."""
    assert "1" == chat(caller, SHORT_TEXT)["x-envoy-attempt-count"]
