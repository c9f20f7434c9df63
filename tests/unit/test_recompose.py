"""Routers that are rebuilt with another configuration: all agree on which requests leave an overloaded pool."""

import pytest

from extproc.compose import compose, recompose
from extproc.config.loading import parse
from extproc.core.listener import Listener
from extproc.core.placing.fleet import PoolLoad
from extproc.core.placing.spill import Spillover
from extproc.core.router.router import Router
from tests.unit.test_spill import FREE, FULL, fleet, moved

POOLS = """
spill: {enabled: true}
pools:
  - {name: s, max_budget_tokens: 100, endpoints: {urls: ["http://s"]}}
  - {name: l, max_budget_tokens: 10000, endpoints: {urls: ["http://l"]}}
"""
ELSEWHERE = """
log_level: debug
drain_s: 1
learning: {messages_per_s: 7}
metrics: {max_models: 7}
"""


def spillover(router: Router) -> Spillover:
    """Return a router's spillover."""
    assert router.placer.spillover is not None
    return router.placer.spillover


def leaving(router: Router) -> set[int]:
    """Return which of many conversations leave a pool that should give away a third of its requests."""
    state = fleet(PoolLoad(FULL, share=0.3), PoolLoad(FREE, absorbs=9_999))
    return moved(spillover(router), state)


def test_which_conversations_leave_depends_only_on_the_pools() -> None:
    """Routers whose other settings differ agree: the workers of one router, or
    one with settings that wait for a restart.
    """
    one, other = parse(POOLS), parse(POOLS + ELSEWHERE)
    assert leaving(compose(one, Listener())) == leaving(compose(other, Listener()))


def test_a_reload_of_other_settings_keeps_conversations_in_their_pools() -> None:
    """Moved conversations are remembered: the same spillover object is used before and after."""
    was, now = parse(POOLS), parse(POOLS + ELSEWHERE)
    router = compose(was, Listener())
    assert spillover(router) is spillover(recompose(router, was, now, router.placer.estimator))


@pytest.mark.parametrize(("old", "new"), [("10000", "20000"), ("http://l", "http://other")])
def test_after_a_reload_a_router_agrees_with_a_newly_started_one(old: str, new: str) -> None:
    """A replaced worker or an added replica moves the same conversations as the others."""
    was, now = parse(POOLS), parse(POOLS.replace(old, new))
    router = compose(was, Listener())
    before = leaving(router)
    spillover(router).count("s", 50)
    after = recompose(router, was, now, router.placer.estimator)
    assert leaving(compose(now, Listener())) == leaving(after) != before
    assert (1, 50) == spillover(after).placed("s"), "what was placed since the servers were asked still counts"


def test_a_change_of_the_limits_forgets_no_request_that_was_placed() -> None:
    """The loads in force were measured against the counts: from 0 again, all that was placed before would count as
    gone from the KV caches, and a full pool would seem empty until its servers are asked again.
    """
    was, now = (parse(POOLS.replace("true", f"true, kv_usage: {limit}")) for limit in (0.8, 0.9))
    router = compose(was, Listener())
    spillover(router).count("s", 50)
    after = spillover(recompose(router, was, now, router.placer.estimator))
    assert ((1, 50), 0.9) == (after.placed("s"), after.settings.kv_usage)
