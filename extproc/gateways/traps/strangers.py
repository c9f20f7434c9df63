"""The trap of trust: what a program can do that answers on the router's address in its place."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.processors import FILTERS_OF_POLICIES
from extproc.gateways.model import Gateway
from extproc.gateways.router import Router
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]


def _trusts_anybody(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for each in gateway.processors:
        lacks = [
            *(["disable_immediate_response is not set"] if each.lets_respond else []),
            *(["mutation_rules allow other headers than the router's"] if each.lets_change else []),
        ]
        # Envoy Gateway's policies have no such settings.
        if lacks and not each.name.startswith(FILTERS_OF_POLICIES):
            yield Hit(each.place, " and ".join(lacks))


TRAPS: Final = (
    Trap(
        "stranger-trusted",
        Severity.WARNING,
        "Whatever answers on the router's address, because it was taken over or its address is another's now, can "
        "respond to clients itself, or change paths and headers.",
        "disable_immediate_response: true, and mutation_rules: {disallow_all: true, allow_expression: {regex: "
        "x-token-budget-.*}}. Envoy Gateway has no setting for either.",
        _trusts_anybody,
        "test_strangers.py::test_what_a_stranger_can_do_where_it_is_trusted",
    ),
)
