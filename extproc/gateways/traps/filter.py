"""Traps of the router's filter: what it sends to the router, and what it does if the router does not reply."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import Gateway, Processor
from extproc.gateways.router import NAMESPACE, Router
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

SWALLOWS_EXPECT = (1, 39)  # this version of Envoy alone


def _headers_skipped(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.modes.request_headers == "SKIP":
            yield Hit(each.modes_place, "request_header_mode is SKIP")


def _expect_hangs(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors if gateway.passes_expect else ():
        if each.modes.request_body == "BUFFERED":
            yield Hit(each.modes_place, "proxy_100_continue is set, and the filter waits for the body")
        elif each.modes.request_body == "FULL_DUPLEX_STREAMED" and gateway.version == SWALLOWS_EXPECT:
            yield Hit(each.modes_place, "proxy_100_continue is set, in full duplex, and this Envoy is 1.39")


def _body_not_sent(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.modes.request_body == "NONE":
            yield Hit(each.modes_place, "request_body_mode is NONE")


def _streamed_without_flag(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.modes.request_body == "STREAMED" and not each.sends_body_at_once:
            yield Hit(each.modes_place, "STREAMED without send_body_without_waiting_for_header_response")


def _buffered_partial(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.modes.request_body == "BUFFERED_PARTIAL":
            yield Hit(each.modes_place, "request_body_mode is BUFFERED_PARTIAL")


def _full_duplex_without_trailers(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        modes = each.modes
        ways = [
            ("request", modes.request_body, modes.request_trailers),
            ("response", modes.response_body, modes.response_trailers),
        ]
        for way, body, trailers in ways:
            if body == "FULL_DUPLEX_STREAMED" and trailers != "SEND":
                yield Hit(
                    each.modes_place, f"{way}_body_mode is FULL_DUPLEX_STREAMED, {way}_trailer_mode is not SEND"
                )


def _response_buffered(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.modes.response_body in ("BUFFERED", "BUFFERED_PARTIAL"):
            yield Hit(each.modes_place, f"response_body_mode is {each.modes.response_body}")


def _route_cache_kept(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.keeps_route:
            yield Hit(each.place, "the route is kept (route_cache_action RETAIN, or disable_clear_route_cache)")


def _only_observes(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.only_observes:
            yield Hit(each.place, "observability_mode is set")


def _headers_refused(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if each.refused:
            names = ", ".join(sorted(each.refused))
            what = "each request that gets them fails" if each.refusal_fails else "they are dropped"
            yield Hit(each.place, f"mutation_rules refuse the router's {names}: {what}")


def _fail_closed(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if not each.fails_open:
            yield Hit(each.place, "failure_mode_allow is not set")


def _namespace_dropped(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if NAMESPACE not in each.namespaces:
            yield Hit(each.place, f"metadata of the namespace {NAMESPACE} is not accepted")


def _headers_not_forwarded(gateway: Gateway, router: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        if names := _withheld(each, router):
            yield Hit(each.place, f"the router is not sent {', '.join(names)}")


def _withheld(processor: Processor, router: Router) -> list[str]:
    return [name for name in router.reads if name in processor.withheld]


TRAPS: Final = (
    Trap(
        "headers-skipped",
        Severity.ERROR,
        "Envoy sends the headers on before the router sees the body: the route can no longer be chosen, and "
        "everything stays on the default one.",
        "request_header_mode: SEND (Envoy Gateway: an entry `request` in processingMode).",
        _headers_skipped,
        "test_router_modes.py::test_misconfigured_gateway",
    ),
    Trap(
        "expect-hangs",
        Severity.ERROR,
        "A client that sends `Expect: 100-continue` waits for an answer before it sends the body, and the pool, "
        "which is to give it, gets nothing before the filter has the body. Envoy 1.39 (not 1.38, nor 1.40) does "
        "the same in full duplex.",
        "Leave proxy_100_continue out of the connection manager: Envoy then answers at once (Istio sets it, "
        "unless istiod has ENABLE_100_CONTINUE_HEADERS=false; or use STREAMED).",
        _expect_hangs,
        "test_bodies.py::test_a_client_that_waits_for_100_continue_waits_in_vain_in_buffered_mode",
    ),
    Trap(
        "body-not-sent",
        Severity.ERROR,
        "Without the body there is nothing to count: everything stays on the default route.",
        "request_body_mode: STREAMED with its flag, or BUFFERED where the gateway has no such flag.",
        _body_not_sent,
        "test_router_modes.py::test_misconfigured_gateway",
    ),
    Trap(
        "streamed-without-flag",
        Severity.ERROR,
        "Envoy sends no body before the router has replied to the headers, and by then it has sent them on: "
        "nothing can be routed.",
        "send_body_without_waiting_for_header_response: true; in Envoy Gateway, whose policy has no "
        "field for it, body: Buffered, or an EnvoyPatchPolicy that sets it.",
        _streamed_without_flag,
        "test_router_modes.py::test_misconfigured_gateway",
    ),
    Trap(
        "buffered-partial",
        Severity.WARNING,
        "When the router's reply to the headers comes before the first byte of the body, Envoy sends them on: "
        "which requests are routed is a matter of chance.",
        "request_body_mode: BUFFERED, or STREAMED with its flag.",
        _buffered_partial,
        "test_other_gateways.py::test_buffered_partial_cannot_route_a_body_that_comes_later",
    ),
    Trap(
        "full-duplex-without-trailers",
        Severity.ERROR,
        "A body may end in trailers, and Envoy refuses a configuration that does not send them to the router.",
        "request_trailer_mode: SEND (and response_trailer_mode, when the response's body is in that mode).",
        _full_duplex_without_trailers,
        "test_traps_of_the_filter.py::test_envoy_refuses_full_duplex_without_trailers",
    ),
    Trap(
        "response-buffered",
        Severity.ERROR,
        "A response over the buffer limit is a 500, and a streamed one reaches the client only when it has "
        "ended. So the router closes the stream instead, and learns nothing.",
        "response_body_mode: STREAMED to learn from responses, NONE otherwise.",
        _response_buffered,
        "test_traps_of_the_filter.py::test_buffered_response_over_the_limit",
    ),
    Trap(
        "route-cache-kept",
        Severity.ERROR,
        "The router sets the pool header and asks Envoy to choose the route again, but Envoy does not: "
        "nothing goes to a smaller pool.",
        "Leave out route_cache_action (DEFAULT) and disable_clear_route_cache.",
        _route_cache_kept,
        "test_traps_of_the_filter.py::test_route_cache_that_is_kept",
    ),
    Trap(
        "only-observed",
        Severity.ERROR,
        "Envoy passes requests on without waiting for a reply, and every request stays on the default route; "
        "the router only counts them.",
        "No observability_mode; to try the router without routing, use its own `mode: shadow`.",
        _only_observes,
        "test_traps_of_the_filter.py::test_replies_that_are_not_waited_for",
    ),
    Trap(
        "headers-refused",
        Severity.ERROR,
        "Envoy drops the headers that the router sets, and nothing goes to a smaller pool; with disallow_is_error"
        " each request is a 500, whatever failure_mode_allow says.",
        "Let mutation_rules allow the router's three headers: allow_expression {regex: x-token-budget-.*} "
        "next to disallow_all.",
        _headers_refused,
        "test_traps_of_the_filter.py::test_headers_that_are_not_taken",
    ),
    Trap(
        "fail-closed",
        Severity.ERROR,
        "While the router is down, restarting or late, every request is an error, although the default route "
        "could serve it.",
        "failure_mode_allow: true (Envoy Gateway: failOpen: true).",
        _fail_closed,
        "test_traps_of_the_filter.py::test_router_down_and_failing_closed",
    ),
    Trap(
        "namespace-dropped",
        Severity.WARNING,
        "Envoy silently drops dynamic metadata of namespaces that are not listed: the access log does not "
        "show the decision.",
        f"metadata_options: {{receiving_namespaces: {{untyped: [{NAMESPACE}]}}}} (Envoy Gateway: "
        f"writableNamespaces: [{NAMESPACE}]).",
        _namespace_dropped,
        "test_traps_of_the_filter.py::test_namespace_that_is_not_received",
    ),
    Trap(
        "headers-not-forwarded",
        Severity.WARNING,
        "The router cannot use what it is not sent: without method and path nothing is routed, without the "
        "tenant header all tenants are learned as one, without content-type and status nothing is learned.",
        "Add them to forward_rules.allowed_headers.",
        _headers_not_forwarded,
        "test_traps_of_the_filter.py::test_tenant_that_is_not_forwarded",
    ),
)
