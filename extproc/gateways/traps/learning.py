"""Traps of what the router learns from: the responses that it is sent, or the access log."""

from collections.abc import Iterator
from typing import Final

from extproc.core.router.learning_budget import LearningSource
from extproc.gateways.model import Gateway
from extproc.gateways.router import Router
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]


def _response_headers_skipped(gateway: Gateway, router: Router) -> Iterator[Hit]:
    reads = router.configuration.learning.source is LearningSource.RESPONSE
    for each in gateway.processors if reads else ():
        if each.modes.response_headers == "SKIP" and each.modes.response_body != "NONE":
            yield Hit(
                each.modes_place, f"response_header_mode is SKIP, response_body_mode {each.modes.response_body}"
            )


def _access_log_missing(gateway: Gateway, router: Router) -> Iterator[Hit]:
    if router.configuration.learning.source is LearningSource.ACCESS_LOG and not gateway.logs_by_grpc:
        yield Hit(gateway.place, "the router has learning.source: access_log, and no access log is sent by gRPC")


TRAPS: Final = (
    Trap(
        "response-headers-skipped",
        Severity.WARNING,
        "The router reads no response whose status it has not seen: responses are sent to it, and nothing is "
        "learned.",
        "response_header_mode: SEND to learn from responses; otherwise response_body_mode: NONE as well.",
        _response_headers_skipped,
        "test_router_modes.py::test_response_headers_that_are_skipped",
    ),
    Trap(
        "access-log-missing",
        Severity.WARNING,
        "The router learns from nothing but the access log, so it learns nothing, and places prompts by its "
        "widest bounds.",
        "The gRPC access log, the filter token_usage and the cluster dualpool_log of "
        "envoy/streamed-access-log.yaml, or learning.source: response.",
        _access_log_missing,
        "test_access_log.py::test_without_the_log_nothing_is_learned",
    ),
)
