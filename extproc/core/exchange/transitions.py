"""The transitions of an exchange as one table, from which docs/architecture.md gets its table and diagram.

A pair of state and event without a row forwards the event and leads to PASSING, which closes the stream as soon as
that is harmless.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from extproc.core.exchange.events import (
    Broken,
    Deadline,
    Drain,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Shed,
)

__all__ = ["TRANSITIONS", "State", "Transition"]


class State(StrEnum):
    """The state of an exchange."""

    OPEN = "open"
    COLLECTING = "collecting"  # the request's body is being collected
    AWAITING = "awaiting"  # placed; the stream is kept open for the response
    READING = "reading"  # the response is being read
    PASSING = "passing"  # nothing is left to do


class Transition(NamedTuple):
    """One row: how a state handles an event (a method of Exchange, and a description), and the next states."""

    state: State
    event: type
    handler: str
    what_happens: str
    leads_to: tuple[State, ...]


_OPEN, _COLLECTING, _AWAITING, _READING, _PASSING = State

TRANSITIONS: Final = (
    Transition(_OPEN, RequestHeaders, "open",
               "ours: hold the headers, or reply if the mode requires it; otherwise forward",
               (_COLLECTING, _PASSING)),
    Transition(_OPEN, RequestBody, "open_headless",
               "the gateway skips headers: report, forward", (_PASSING,)),
    Transition(_COLLECTING, RequestBody, "collect",
               "collect; complete: decide; early or cut off: default pool; reply to all that is held",
               (_COLLECTING, _AWAITING, _PASSING)),
    Transition(_COLLECTING, RequestTrailers, "collect_trailers",
               "complete: decide, reply to all that is held", (_AWAITING, _PASSING)),
    Transition(_COLLECTING, Deadline, "miss_deadline",
               "if held: default pool, reply to all that is held", (_COLLECTING, _PASSING)),
    Transition(_COLLECTING, Shed, "shed",
               "default pool, reply to all that is held", (_PASSING,)),
    Transition(_COLLECTING, ResponseHeaders, "responded_by_others",
               "nothing left to decide: reply to all that is held", (_PASSING,)),
    Transition(_AWAITING, RequestTrailers, "forward",
               "forward", (_AWAITING,)),
    Transition(_AWAITING, ResponseHeaders, "open_response",
               "readable: read on, hold the headers of a JSON response in STREAMED; otherwise forward",
               (_READING, _PASSING)),
    Transition(_AWAITING, ResponseBody, "open_headless_response",
               "the gateway skips the response's headers: report, forward", (_PASSING,)),
    Transition(_READING, ResponseBody, "read",
               "feed the reader; at the end of the response, learn when the stream is over", (_READING, _PASSING)),
    Transition(_READING, Deadline, "forward",
               "if the response's headers are held: reply to them", (_READING,)),
    Transition(_READING, ResponseTrailers, "read_trailers",
               "end of the response: learn when the stream is over", (_PASSING,)),
    *(Transition(state, Drain, "drain",
                 "close as soon as nothing is held and no byte would be lost", (state,)) for state in State),
    *(Transition(state, Broken, "break",
                 "report; abort if bytes are lost, otherwise close", (_PASSING,)) for state in State),
)  # fmt: skip
