"""Traps of headers that clients can set in place of the router."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import Gateway
from extproc.gateways.router import Router
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]


def _spoofable_header(gateway: Gateway, router: Router) -> Iterator[Hit]:
    missing = [name for name in router.sets if name not in gateway.stripped]
    if missing:
        yield Hit(gateway.place, f"from what clients send this is not removed: {', '.join(missing)}")


TRAPS: Final = (
    Trap(
        "spoofable-header",
        Severity.ERROR,
        "A client that sends the pool header itself chooses its pool whenever the router is down, late or in "
        "mode shadow. A filter cannot remove it in time: the route has been chosen by then.",
        "early_header_mutation_extensions that remove the router's three headers (Envoy Gateway: "
        "ClientTrafficPolicy headers.earlyRequestHeaders.remove).",
        _spoofable_header,
        "test_traps_of_routes.py::test_claim_that_is_not_stripped",
    ),
)
