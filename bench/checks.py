"""Checks that the intended work was measured: a filter that fails open is fast, and silent about it.

So is a server that ends every stream with an error: to h2load that is a response like any other, with status 200.
"""

import time

from bench.load import LoadFailed
from bench.stack import Gateway, Server
from extproc.core.placing.policy import Reason

__all__ = ["MOST_GIVEN_UP", "all_were_learned", "all_were_placed", "none_failed_open"]

# The router reads the last response shortly after the client has received it.
WITHIN_S = 5.0
_POLL_S = 0.02
MOST_GIVEN_UP = 0.02


def none_failed_open(gateway: Gateway) -> None:
    """Raise LoadFailed if Envoy let a request pass without a reply from the server."""
    failed_open = gateway.statistic("http.ingress.ext_proc.failure_mode_allowed")
    if failed_open:
        raise LoadFailed(f"{failed_open} requests were not decided: Envoy did not wait for the server")


def all_were_placed(ours: Server, expected: int) -> None:
    """Raise LoadFailed unless `expected` requests were placed since the start, at least 98 % by their budget.

    The others are cheap, because they were given up and not estimated.
    """
    reasons = (Reason.SHED, Reason.DEADLINE)
    given_up = sum(ours.metric("dualpool_requests_total", reason=reason.value) for reason in reasons)
    placed = ours.metric("dualpool_requests_total")
    if placed != expected:
        raise LoadFailed(f"{placed:.0f} requests were placed, {expected} were sent")
    if given_up > MOST_GIVEN_UP * placed:
        raise LoadFailed(f"{given_up:.0f} of {placed:.0f} requests were given up: the machine is too busy")


def all_were_learned(ours: Server, expected: int, *, but: int = 0) -> None:
    """Raise LoadFailed unless `expected` responses, or up to `but` fewer, were kept and read since the start."""
    deadline = time.monotonic() + WITHIN_S
    while not expected - but <= min(found := _kept_and_read(ours)) <= max(found) <= expected:
        if time.monotonic() > deadline:
            raise LoadFailed(f"{found[0]:.0f} responses kept, {found[1]:.0f} learned from, {expected} expected")
        time.sleep(_POLL_S)


def _kept_and_read(ours: Server) -> tuple[float, float]:
    return ours.metric("dualpool_streams_kept_total"), ours.metric(Server.RESPONSES_READ)
