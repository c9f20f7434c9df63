"""Making sure that what was measured is what was meant: a filter that fails open is fast, and says nothing."""

import time

from bench.load import LoadFailed
from bench.stack import Gateway, Server

__all__ = ["all_were_learned", "none_failed_open"]

# The last response is read a moment after its client has it.
WITHIN_S = 5.0
_POLL_S = 0.02


def none_failed_open(gateway: Gateway) -> None:
    """Raise LoadFailed when a request went by without a response of the server."""
    failed_open = gateway.statistic("http.ingress.ext_proc.failure_mode_allowed")
    if failed_open:
        raise LoadFailed(f"{failed_open} requests were not decided: Envoy did not wait for the server")


def all_were_learned(ours: Server, expected: int) -> None:
    """Raise LoadFailed unless just so many responses were kept and read since the start."""
    deadline = time.monotonic() + WITHIN_S
    while (found := _kept_and_read(ours)) != (expected, expected):
        if time.monotonic() > deadline:
            raise LoadFailed(f"{found[0]:.0f} responses kept and {found[1]:.0f} learned from; {expected} expected")
        time.sleep(_POLL_S)


def _kept_and_read(ours: Server) -> tuple[float, float]:
    return ours.metric("dualpool_streams_kept_total"), ours.metric(Server.RESPONSES_READ)
