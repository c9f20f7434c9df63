"""The modes shadow and off, and Envoy configurations with which nothing can be routed."""

from collections.abc import Callable

import pytest

from tests.envoy.harness.biting import Bitten
from tests.envoy.harness.building import Build
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT, chat, chat_stream
from tests.envoy.harness.gateway import Document, ext_proc
from tests.envoy.harness.polling import eventually


def test_shadow_decides_and_learns_but_sets_nothing(build: Build, mode: str) -> None:
    """Everything goes long without added headers; the log has the decisions, and the router learns."""
    caller = build(mode, mode="shadow")
    served = [chat(caller, text)["x-served-by"] for text in (SHORT_TEXT, LONG_TEXT)]
    assert ["long", "long"] == served
    added = [name for _, request in caller.received() for name in request.headers if "token-budget" in name]
    assert [] == added
    entries = [(e["pool"], e["reason"], e["mode"], e["route"]) for e in caller.access_log(2)]
    assert entries == [("short", "fits", "shadow", "long"), ("long", "too_long", "shadow", "long")]
    eventually(lambda: caller.observations() == 2, "both responses are learned from")


def test_off_passes_everything(build: Build, mode: str) -> None:
    """Everything goes long; nothing is decided or learned."""
    caller = build(mode, mode="off")
    served = [call(caller, SHORT_TEXT)["x-served-by"] for call in (chat, chat_stream)]
    assert ["long", "long"] == served
    assert [None, None] == [entry["pool"] for entry in caller.access_log(2)]
    router = caller.stack.router
    # Requests that mode `off` leaves alone are not counted as requests of other paths, either.
    assert (0, 0) == (router.metric("dualpool_requests_total"), router.metric("dualpool_passed_requests_total"))
    assert [] == router.state()


def skip_headers(document: Document) -> None:
    """Send no request headers: the first trap."""
    ext_proc(document)["processing_mode"]["request_header_mode"] = "SKIP"


def skip_headers_buffered(document: Document) -> None:
    """Send no request headers, in a mode in which the body would arrive complete."""
    skip_headers(document)
    ext_proc(document)["processing_mode"]["request_body_mode"] = "BUFFERED"
    del ext_proc(document)["send_body_without_waiting_for_header_response"]


def omit_the_flag(document: Document) -> None:
    """Set STREAMED without its flag: the second trap."""
    del ext_proc(document)["send_body_without_waiting_for_header_response"]


def send_no_body(document: Document) -> None:
    """Send no body at all: the third trap."""
    ext_proc(document)["processing_mode"]["request_body_mode"] = "NONE"
    del ext_proc(document)["send_body_without_waiting_for_header_response"]


def only_observe(document: Document) -> None:
    """Wait for no reply, and act on none."""
    ext_proc(document)["observability_mode"] = True


@pytest.mark.parametrize(
    ("trap", "cause"),
    [
        (skip_headers, "no_request_headers"),
        (skip_headers_buffered, "no_request_headers"),
        (omit_the_flag, "streamed_without_flag"),
        (send_no_body, "no_request_body"),
        (only_observe, "only_observed"),
    ],
)
def test_misconfigured_gateway(build: Build, trap: Callable[[Document], None], cause: str) -> None:
    """Traffic passes unchanged to the long pool; the router counts every request and logs the cause once."""
    caller = build("streamed", change=trap)
    served = [
        call(caller, text)["x-served-by"] for call in (chat, chat_stream) for text in (SHORT_TEXT, LONG_TEXT)
    ]
    assert ["long"] * 4 == served
    router = caller.stack.router
    eventually(
        lambda: router.metric("dualpool_misconfigured_total", cause=cause) == 4, "each request is counted as such"
    )
    assert 0 == router.metric("dualpool_requests_total")
    assert 1 == sum('"the gateway is misconfigured' in line and cause in line for line in router.log_lines())


def test_response_headers_that_are_skipped(bite: Bitten) -> None:
    """Requests are routed, and the router counts each response that it cannot read."""
    caller = bite("response-headers-skipped")
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    router = caller.stack.router
    eventually(
        lambda: router.metric("dualpool_misconfigured_total", cause="no_response_headers") == 1,
        "the response is counted",
    )
    assert 0 == caller.observations()
