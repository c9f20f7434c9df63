"""The effects, on the real Envoy, of traps in routes that no other test covers."""

from typing import Any

import pytest

from tests.envoy.harness.biting import SLOW, Bitten, action_with, post, retry_with, with_variants
from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, chat
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import RouterProcess
from tests.traps.bitten import BITTEN
from tests.traps.header_conditions import ABSENT, SHORT, arriving_on, reached_by


def test_default_route_to_the_short_pool(bite: Bitten) -> None:
    """A long prompt reaches the short pool, and the client gets its refusal."""
    response = post(bite("default-route-not-largest"), chat_body(MODEL, LONG_TEXT, max_tokens=16))
    assert ("short", 400) == (response.headers["x-served-by"], response.status_code)


@pytest.mark.parametrize(("condition", "matches"), ABSENT.values(), ids=ABSENT)
def test_a_default_route_that_needs_the_header(
    build: Build,
    router: RouterProcess,
    condition: dict[str, Any],
    matches: bool,  # noqa: FBT001
) -> None:
    """Requests arrive without the pool's header: a default route that does not match those is a 404 for all."""
    caller = build("streamed", change=lambda document: arriving_on(document, condition), router=router)
    assert (200 if matches else 404) == post(caller).status_code


@pytest.mark.parametrize(("condition", "matches"), SHORT.values(), ids=SHORT)
def test_conditions_of_another_age(
    build: Build,
    router: RouterProcess,
    condition: dict[str, Any],
    matches: bool,  # noqa: FBT001
) -> None:
    """The fields that string_match has replaced still work."""
    caller = build("streamed", change=lambda document: reached_by(document, condition), router=router)
    assert ("short" if matches else "long") == chat(caller, SHORT_TEXT)["x-served-by"]


def test_short_route_behind_the_default_one(bite: Bitten) -> None:
    """The router selects the short pool, but no request ever reaches it."""
    caller = bite("pool-without-route")
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert ["short"] == [entry["pool"] for entry in caller.access_log()]


def test_route_timeout_cuts_a_response(bite: Bitten) -> None:
    """If a response takes longer than the route's timeout, the client gets Envoy's own 504."""
    assert 504 == post(bite("response-cut"), headers={"x-emulate-fault": "slow=3"}).status_code


def test_other_times_cut_a_response(build: Build, router: RouterProcess) -> None:
    """Timeouts per try, per stream and for idle streams end a response like the route's timeout."""
    changes = {
        "try": retry_with(per_try_timeout="0.2s"),
        "silent-try": retry_with(per_try_idle_timeout="0.2s"),
        "exchange": action_with(max_stream_duration={"max_stream_duration": "0.2s"}),
        "silence": action_with(idle_timeout="0.2s"),
    }
    caller = build("streamed", change=with_variants(changes), router=router)
    assert 200 == post(caller, headers=SLOW).status_code
    assert dict.fromkeys(changes, 504) == {
        name: post(caller, headers={**SLOW, "x-variant": name}).status_code for name in changes
    }


def test_claim_that_is_not_stripped(build: Build) -> None:
    """While the router is down, a client that claims to be short is routed to the short pool."""
    caller = build("streamed", change=BITTEN["spoofable-header"])
    caller.stack.router.kill()
    assert "short" == post(caller, headers={"x-token-budget-pool": "short"}).headers["x-served-by"]
