"""The table of transitions describes exactly what the exchange does."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.core.exchange.events import Broken, Drain, Event, Modes
from extproc.core.exchange.machine import Exchange
from extproc.core.exchange.transitions import TRANSITIONS, State
from tests.unit.exchanges import EVENTS, MODES, exchanges

LEADS_TO = {(row.state, row.event): set(row.leads_to) for row in TRANSITIONS}
EVENTS_AND_MORE = EVENTS | st.just(Drain()) | st.just(Broken(ValueError("bytes")))


def test_every_row_has_a_method_with_its_handlers_name() -> None:
    """Every row has a handler, and no row occurs twice."""
    assert [] == [row.handler for row in TRANSITIONS if not hasattr(Exchange, f"_{row.handler}")]
    assert len(TRANSITIONS) == len(LEADS_TO)


@given(
    events=exchanges() | st.lists(EVENTS_AND_MORE, max_size=12),
    modes=MODES,
)
@settings(max_examples=300)
def test_no_event_leads_to_a_state_that_the_table_does_not_name(
    connect: Callable[..., Any], events: list[Event], modes: Modes
) -> None:
    """For any events in any order, each step is a row of the table or leads to passing."""
    exchange = connect(modes, max_held_bytes=100_000).exchange
    for event in events:
        before = exchange.state
        exchange.handle(event, 0.0)
        assert exchange.state in LEADS_TO.get((before, type(event)), {State.PASSING})
