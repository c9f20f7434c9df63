"""What traps in routes do on the real Envoy, where no other test shows it."""

from tests.envoy.harness.biting import SLOW, Bitten, of_action, of_retry, post, with_variants
from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, chat
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN


def test_default_route_to_the_short_pool(bite: Bitten) -> None:
    """A long prompt ends in the short pool, which refuses it: the client's error."""
    response = post(bite("default-route-not-largest"), chat_body(MODEL, LONG_TEXT, max_tokens=16))
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)


def test_short_route_behind_the_default_one(bite: Bitten) -> None:
    """The router decides for short, and no request ever gets there."""
    caller = bite("pool-without-route")
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert ["short"] == [entry["pool"] for entry in caller.access_log()]


def test_route_timeout_cuts_a_response(bite: Bitten) -> None:
    """A response that takes longer than the route's timeout is Envoy's own 504."""
    assert 504 == post(bite("response-cut"), headers={"x-emulate-fault": "slow=3"}).status_code


def test_other_times_cut_a_response(build: Build, router: RouterProcess) -> None:
    """Times for a try, for an exchange and for its silence end a response as the route's timeout does."""
    changes = {
        "try": of_retry(per_try_timeout="0.2s"),
        "silent-try": of_retry(per_try_idle_timeout="0.2s"),
        "exchange": of_action(max_stream_duration={"max_stream_duration": "0.2s"}),
        "silence": of_action(idle_timeout="0.2s"),
    }
    caller = build("streamed", change=with_variants(changes), router=router)
    assert 200 == post(caller, headers=SLOW).status_code
    assert dict.fromkeys(changes, 504) == {
        name: post(caller, headers={**SLOW, "x-variant": name}).status_code for name in changes
    }


def test_claim_that_is_not_stripped(build: Build) -> None:
    """With the router down, a client that claims to be short is believed."""
    caller = build("streamed", change=BITTEN["spoofable-header"])
    caller.stack.router.kill()
    assert "short" == post(caller, headers={"x-token-budget-pool": "short"}).headers["x-served-by"]
