"""One HTTP exchange, request and response, as a state machine: events in, actions out, no I/O.

    state       event             what happens                                            next state
    ----------  ----------------  ------------------------------------------------------  ------------------
    OPEN        RequestHeaders    none of ours, or no body: let it go on                  PASSING
                                  modes that cannot route: report, let it go on           PASSING
                                  ours: hold the headers, or reply where the mode waits  COLLECTING
                RequestBody       the gateway skips headers: report, let it go on         PASSING
    COLLECTING  RequestBody       more may come: gather                                   COLLECTING
                                  whole: decide, send all that is held                    AWAITING | PASSING
                                  early or cut off: default pool, send all that is held   PASSING
                RequestTrailers   whole: as above                                         AWAITING | PASSING
                Deadline          default pool, send all that is held                     PASSING
                ResponseHeaders   answered by others: nothing to decide any more          PASSING
    AWAITING    RequestTrailers   let them go on                                          AWAITING
                ResponseHeaders   readable: read on; else let it go on                    READING | PASSING
    READING     ResponseBody      feed the reader; at the response's end learn              READING | PASSING
                ResponseTrailers  the end: learn                                          PASSING
    any         any other         let it go on                                            PASSING

PASSING closes the stream as soon as that is harmless. The module's rules, each from Envoy's behaviour:

1. A mutation has an effect only in the reply to held headers (STREAMED, FULL_DUPLEX_STREAMED) or to the whole
   body (BUFFERED, BUFFERED_PARTIAL within its limit).
2. A body message is never answered before the headers are.
3. What is held is sent in the order in which it came.
4. FULL_DUPLEX_STREAMED: every byte goes back, in pieces of at most 62 KiB, and the stream is not closed between
   the first and the last of them. In all other modes a close is clean at any time and is a reply to everything.
5. Only a response with status 2xx to a request that was seen whole teaches.
6. An exception in our own code changes nothing for the exchange: it goes on as in PASSING.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.exchange.events import (
    MAY_DECIDE,
    Action,
    BodyMode,
    Close,
    ContinueBody,
    ContinueHeaders,
    Deadline,
    Event,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from extproc.core.exchange.replies import DuplexBodies, neutral_reply
from extproc.core.facts import Api, RequestHead
from extproc.core.listener import Misconfiguration, Skipped
from extproc.core.placing.decision import Decision, Reason
from extproc.core.router.router import Router
from extproc.core.router.teaching import Lesson, lesson_for

__all__ = ["Exchange", "State"]

_BUFFERED = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)


class State(Enum):
    """Where an exchange stands; see the table at the top of the module."""

    OPEN = "open"
    COLLECTING = "collecting"
    AWAITING = "awaiting"
    READING = "reading"
    PASSING = "passing"


class Exchange:
    """The state of one stream. `modes` is what the gateway's first message says of itself."""

    def __init__(self, router: Router, modes: Modes) -> None:
        self.state = State.OPEN
        self._router = router
        self._modes = modes
        self._duplex = DuplexBodies(modes)
        self._head = RequestHead()
        self._api: Api | None = None
        self._headers_held = False
        self._held: list[RequestBody] = []
        self._body = b""
        self._body_bytes = 0
        self._next_look_bytes = 0
        self._kept: Decision | None = None
        self._response_messages = 0
        self._lesson: Lesson | None = None

    @property
    def holding(self) -> bool:
        """Whether a request waits for us, so that a Deadline has to come if its body does not."""
        return self._headers_held

    @property
    def may_leave(self) -> bool:
        """Whether the stream can be closed now without losing bytes (rule 4)."""
        return not self._duplex.under_way

    def handle(self, event: Event, now_s: float) -> list[Action]:
        """Take one event in; return what to answer, in order. Never raises."""
        self._duplex.note(event)
        try:
            actions = self._TABLE.get((self.state, type(event)), Exchange._pass)(self, event, now_s)
        except Exception as error:  # noqa: BLE001  (rule 6)
            self._router.listener.failed(error)
            actions = self._untouched(event)
        # A deadline comes while the stream waits for its next message, which then closes it.
        if self.state is State.PASSING and self.may_leave and type(event) is not Deadline:
            return self._closing(actions)
        return actions

    def end(self) -> None:
        """Called when the stream is over, by whichever side; a response half read is counted."""
        if self.state is State.READING:
            self._router.listener.not_learned(ResponseFault.CUT_SHORT)
        if self._kept is not None:
            self._router.settle(self._kept, self._response_messages)
        self.state, self._kept = State.PASSING, None

    # OPEN

    def _open(self, event: RequestHeaders, now_s: float) -> list[Action]:
        self._head = event.head
        self._api = self._router.api_of(event.head)
        if self._api is None or event.end_of_stream:
            self._router.listener.passed()
            return self._pass(event, now_s)
        if wrong := _misconfiguration(self._modes):
            self._router.listener.misconfigured(wrong)
            return self._pass(event, now_s)
        if self._modes.request_body is BodyMode.BUFFERED_PARTIAL:
            self._router.listener.misconfigured(Misconfiguration.BUFFERED_PARTIAL)
        if self._modes.response_body in _BUFFERED:
            self._router.listener.misconfigured(Misconfiguration.RESPONSE_BUFFERED)
        self.state = State.COLLECTING
        self._next_look_bytes = self._router.early.first_look(self._api)
        self._headers_held = self._modes.request_body not in _BUFFERED
        return [] if self._headers_held else neutral_reply(event, self._modes)

    def _open_headless(self, event: Event, now_s: float) -> list[Action]:
        self._router.listener.misconfigured(Misconfiguration.NO_REQUEST_HEADERS)
        return self._pass(event, now_s)

    # COLLECTING

    def _collect(self, event: RequestBody, now_s: float) -> list[Action]:
        self._held.append(event)
        self._body_bytes += len(event.data)
        mode = self._modes.request_body
        if event.end_of_stream or mode is BodyMode.BUFFERED:
            return self._decide(now_s)
        if mode is BodyMode.BUFFERED_PARTIAL:
            return self._give_up(Reason.CUT_OFF)
        if self._body_bytes >= self._next_look_bytes and self._has_enough():
            return self._give_up(Reason.EARLY)
        return []

    def _has_enough(self) -> bool:
        early = self._router.early
        if self._body_bytes >= early.max_held_bytes:  # then not even put together
            return True
        assert self._api is not None
        self._next_look_bytes = early.next_look(self._api, self._joined_body())
        return self._next_look_bytes == 0

    def _collect_trailers(self, event: RequestTrailers, now_s: float) -> list[Action]:
        if not self._headers_held:
            return self._pass(event, now_s)
        return [*self._decide(now_s), *neutral_reply(event, self._modes)]

    def _decide(self, now_s: float) -> list[Action]:
        assert self._api is not None
        decision = self._router.decide(self._api, self._head, self._joined_body())
        if self._can_read(decision) and self._router.keeps(decision, now_s):
            self._kept = decision
            return self._send_held(decision, State.AWAITING)
        return self._release(decision)

    def _can_read(self, decision: Decision) -> bool:
        mode = self._modes.response_body
        return mode is not BodyMode.NONE and not (decision.stream and mode in _BUFFERED)

    def _miss_deadline(self, _event: Deadline, _now_s: float) -> list[Action]:
        return self._give_up(Reason.DEADLINE) if self._headers_held else []

    def _responded_by_others(self, event: ResponseHeaders, now_s: float) -> list[Action]:
        self._router.listener.not_learned(Skipped.EARLY_RESPONSE)
        return [*self._send_held(None, State.PASSING), *self._pass(event, now_s)]

    def _give_up(self, reason: Reason) -> list[Action]:
        assert self._api is not None
        return self._release(self._router.unsure(self._api, reason, self._body_bytes))

    def _release(self, decision: Decision) -> list[Action]:
        self._router.listener.released(decision)
        return self._send_held(decision, State.PASSING)

    def _joined_body(self) -> bytes:
        if len(self._body) < self._body_bytes:
            self._body = self._held[0].data if len(self._held) == 1 else b"".join(e.data for e in self._held)
        return self._body

    def _send_held(self, decision: Decision | None, state: State) -> list[Action]:
        """Reply all that is held, in order; the decision goes with the headers, or with the body after them."""
        headers: list[Action] = [ContinueHeaders(Phase.REQUEST, decision)] if self._headers_held else []
        bodies = [action for event in self._held for action in neutral_reply(event, self._modes)]
        if not headers and decision is not None and bodies:
            bodies = [ContinueBody(Phase.REQUEST, decision)]
        self.state, self._headers_held, self._held, self._body = state, False, [], b""
        return headers + bodies

    # AWAITING, READING

    def _open_response(self, event: ResponseHeaders, now_s: float) -> list[Action]:
        assert self._kept is not None
        self._response_messages += 1
        if event.head.attempts > 1 and event.head.succeeded and self._kept.routed:
            self._router.listener.repaired(self._kept)
        self._lesson = lesson_for(self._router, self._kept, event.head)
        if self._lesson is None:
            return self._pass(event, now_s)
        self.state = State.READING
        return self._read_on(b"", event)

    def _read(self, event: ResponseBody, _now_s: float) -> list[Action]:
        self._response_messages += 1
        return self._read_on(event.data, event)

    def _read_on(self, data: bytes, event: ResponseHeaders | ResponseBody) -> list[Action]:
        assert self._lesson is not None
        try:
            self._lesson.feed(data)
            if event.end_of_stream or self._lesson.complete:
                self.state = State.PASSING
                self._lesson.finish()
        except ResponseNotUnderstood as error:
            self._router.listener.not_learned(error.fault)
            self.state = State.PASSING
        return neutral_reply(event, self._modes)

    def _read_trailers(self, event: ResponseTrailers, _now_s: float) -> list[Action]:
        self._read_on(b"", ResponseBody(b"", end_of_stream=True))
        return neutral_reply(event, self._modes)

    # PASSING

    def _pass(self, event: Event, _now_s: float) -> list[Action]:
        self.state = State.PASSING
        return neutral_reply(event, self._modes)

    def _pass_trailers(self, event: RequestTrailers, _now_s: float) -> list[Action]:
        return neutral_reply(event, self._modes)

    def _untouched(self, event: Event) -> list[Action]:
        among_held = any(held is event for held in self._held)
        actions = self._send_held(None, State.PASSING)
        return actions if among_held else actions + neutral_reply(event, self._modes)

    def _closing(self, actions: list[Action]) -> list[Action]:
        """Return the last actions of a stream; a close answers everything but what carries a decision."""
        if not self._duplex.any_mode:
            actions = [a for a in actions if isinstance(a, MAY_DECIDE) and a.decision]
        return [*actions, Close()]

    _TABLE: ClassVar[dict[tuple[State, type], Callable[[Any, Any, float], list[Action]]]] = {
        (State.OPEN, RequestHeaders): _open,
        (State.OPEN, RequestBody): _open_headless,
        (State.COLLECTING, RequestBody): _collect,
        (State.COLLECTING, RequestTrailers): _collect_trailers,
        (State.COLLECTING, Deadline): _miss_deadline,
        (State.COLLECTING, ResponseHeaders): _responded_by_others,
        (State.AWAITING, RequestTrailers): _pass_trailers,
        (State.AWAITING, ResponseHeaders): _open_response,
        (State.READING, ResponseBody): _read,
        (State.READING, ResponseTrailers): _read_trailers,
    }


def _misconfiguration(modes: Modes) -> Misconfiguration | None:
    if modes.request_body in (BodyMode.NONE, BodyMode.OTHER):
        return Misconfiguration.NO_REQUEST_BODY
    if modes.request_body is BodyMode.STREAMED and not modes.body_without_waiting:
        return Misconfiguration.STREAMED_WITHOUT_FLAG
    return None
