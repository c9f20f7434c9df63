"""One HTTP exchange, request and response, as a state machine: events in, replies out, no I/O.

transitions.py is the table of it: what each state does with each event, and where that leads. Here is how. The
rules, each from Envoy's behaviour:

1. A mutation has an effect only in the reply to held headers (STREAMED, FULL_DUPLEX_STREAMED) or to the whole
   body (BUFFERED, BUFFERED_PARTIAL within its limit).
2. A body message is never replied to before the headers are.
3. What is held is sent in the order in which it came.
4. Who may close when: FULL_DUPLEX_STREAMED sends every byte back, in pieces of at most 62 KiB, and the stream is
   not closed between the first and the last of them. In all other modes a close is a reply to everything. While
   a request is held the stream stays open, also at a Drain: the deadline ends the wait. Where our own failure
   loses bytes the stream is aborted, so that the gateway knows. A gateway that takes a close for an error is
   replied to until it ends the stream itself (`exchange.close: never`); only a message that cannot be read, or a
   reply that cannot be written, ends it before.
5. Only a response with status 2xx to a request that was seen whole teaches.
6. An exception in our own code changes nothing for the exchange: it goes on as in PASSING.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.exchange.events import (
    Abort,
    BodyMode,
    Broken,
    Close,
    ContinueBody,
    ContinueHeaders,
    Deadline,
    Drain,
    Event,
    Modes,
    Phase,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Shed,
)
from extproc.core.exchange.replies import DuplexBodies, neutral_replies
from extproc.core.exchange.transitions import TRANSITIONS, State
from extproc.core.facts import Api, RequestHead, ResponseHead
from extproc.core.listener import Misconfiguration
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Reason
from extproc.core.reading.reader import UsageReader
from extproc.core.router.router import Router

__all__ = ["Exchange"]

Replies = Sequence[Reply]
_BUFFERED = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)
_CONTINUE_RESPONSE: Final[Replies] = (ContinueBody(Phase.RESPONSE),)  # made once: streams need many


class Exchange:
    """The state of one stream. `modes` is what the gateway's first message says of itself."""

    def __init__(self, router: Router, modes: Modes) -> None:
        self.state = State.OPEN
        self._router = router
        self._modes = modes
        self._duplex = DuplexBodies(modes) if BodyMode.FULL_DUPLEX_STREAMED in _body_modes(modes) else None
        self._draining = False
        self._closes = router.closes_streams
        self._head = RequestHead()
        self._api: Api | None = None
        self._headers_held = False
        self._held: list[RequestBody] = []
        self._body = b""
        self._body_bytes = 0
        self._next_look_bytes = 0
        self._kept: Decision | None = None
        self._response_messages = 0
        self._response_head = ResponseHead(0)
        self._reader: UsageReader | None = None

    @property
    def holding(self) -> bool:
        """Whether a request waits for us, so that a Deadline has to come if its body does not."""
        return self._headers_held

    @property
    def undecided(self) -> bool:
        """Whether a request of ours is neither decided nor given up."""
        return self.state is State.COLLECTING

    def handle(self, event: Event, now_s: float) -> Replies:
        """Take one event in; return what to reply, in order. Never raises."""
        if self._duplex is not None:
            self._duplex.observe(event)
        try:
            replies = _HANDLERS[self.state].get(type(event), Exchange._pass)(self, event, now_s)
        except Exception as error:  # noqa: BLE001  (rule 6)
            self._router.listener.failed(error)
            replies = self._untouched(event)
        if not self._closes and not isinstance(event, Broken):
            return replies
        if self.state is State.PASSING or (self._draining and not self._headers_held):
            return self._closing(replies)
        return replies

    def end(self) -> None:
        """Called when the stream is over, by whichever side; a response half read is counted."""
        if self._kept is not None:
            if self.state is State.READING:
                self._router.learner.not_learned(self._kept, ResponseFault.CUT_SHORT)
            self._router.learner.settle(self._kept, self._response_messages)
        self.state, self._kept = State.PASSING, None

    # OPEN

    def _open(self, event: RequestHeaders, now_s: float) -> Replies:
        router = self._router
        self._head = event.head
        self._api = router.api_of(event.head)
        if self._api is None:
            return self._pass(event, now_s)
        if event.end_of_stream:
            router.listener.passed()
            return self._pass(event, now_s)
        if wrong := _misconfiguration(self._modes):
            router.listener.misconfigured(wrong)
            return self._pass(event, now_s)
        if self._modes.request_body is BodyMode.BUFFERED_PARTIAL:
            router.listener.misconfigured(Misconfiguration.BUFFERED_PARTIAL)
        if self._modes.response_body in _BUFFERED:
            router.listener.misconfigured(Misconfiguration.RESPONSE_BUFFERED)
        self.state = State.COLLECTING
        self._next_look_bytes = router.placer.early.first_look(self._api)
        self._headers_held = self._modes.request_body not in _BUFFERED
        return () if self._headers_held else neutral_replies(event, self._modes)

    def _open_headless(self, event: Event, now_s: float) -> Replies:
        self._router.listener.misconfigured(Misconfiguration.NO_REQUEST_HEADERS)
        return self._pass(event, now_s)

    # COLLECTING

    def _collect(self, event: RequestBody, now_s: float) -> Replies:
        self._held.append(event)
        self._body_bytes += len(event.data)
        mode = self._modes.request_body
        if event.end_of_stream or mode is BodyMode.BUFFERED:
            return self._decide(now_s)
        if mode is BodyMode.BUFFERED_PARTIAL:
            return self._give_up(Reason.CUT_OFF)
        if self._body_bytes >= self._next_look_bytes and self._has_enough():
            return self._give_up(Reason.EARLY)
        return ()

    def _has_enough(self) -> bool:
        early = self._router.placer.early
        if self._body_bytes >= early.max_held_bytes:  # then not even put together
            return True
        assert self._api is not None
        self._next_look_bytes = early.next_look(self._api, self._joined_body())
        return self._next_look_bytes == 0

    def _collect_trailers(self, event: RequestTrailers, now_s: float) -> Replies:
        if not self._headers_held:
            return self._pass(event, now_s)
        return [*self._decide(now_s), *neutral_replies(event, self._modes)]

    def _decide(self, now_s: float) -> Replies:
        assert self._api is not None
        decision = self._router.decide(self._api, self._head, self._joined_body())
        if self._can_read(decision) and self._router.learner.keeps(decision, now_s):
            self._kept = decision
            return self._send_held(decision, State.AWAITING)
        return self._release(decision)

    def _can_read(self, decision: Decision) -> bool:
        mode = self._modes.response_body
        return mode is not BodyMode.NONE and not (decision.stream and mode in _BUFFERED)

    def _miss_deadline(self, _event: Deadline, _now_s: float) -> Replies:
        return self._give_up(Reason.DEADLINE) if self._headers_held else ()

    def _shed(self, _event: Shed, _now_s: float) -> Replies:
        return self._give_up(Reason.SHED)

    def _responded_by_others(self, event: ResponseHeaders, now_s: float) -> Replies:
        self._router.listener.not_learned(ResponseFault.EARLY_RESPONSE)
        return [*self._send_held(None, State.PASSING), *self._pass(event, now_s)]

    def _give_up(self, reason: Reason) -> Replies:
        assert self._api is not None
        return self._release(self._router.unsure(self._api, reason, self._body_bytes))

    def _release(self, decision: Decision) -> Replies:
        self._router.listener.released(decision)
        return self._send_held(decision, State.PASSING)

    def _joined_body(self) -> bytes:
        if len(self._body) < self._body_bytes:
            self._body = self._held[0].data if len(self._held) == 1 else b"".join([e.data for e in self._held])
        return self._body

    def _send_held(self, decision: Decision | None, state: State) -> Replies:
        """Reply to all that is held, in order; the decision goes with the headers, or with the body after them."""
        replies: list[Reply] = []
        if self._headers_held:
            replies.append(ContinueHeaders(Phase.REQUEST, decision))
        if self._held and decision is not None and not self._headers_held:
            replies.append(ContinueBody(Phase.REQUEST, decision))
        # Without full duplex a close, if there is one, is the reply to all bodies.
        elif state is not State.PASSING or self._duplex is not None or not self._closes:
            for event in self._held:
                replies += neutral_replies(event, self._modes)
        self.state, self._headers_held, self._held, self._body = state, False, [], b""
        return replies

    # AWAITING, READING

    def _open_response(self, event: ResponseHeaders, now_s: float) -> Replies:
        assert self._kept is not None
        self._response_messages += 1
        self._response_head = event.head
        self._reader = self._router.learner.reader(self._kept, event.head)
        if self._reader is None:
            return self._pass(event, now_s)
        self.state = State.READING
        if event.end_of_stream:
            self._learn(self._reader)
        return neutral_replies(event, self._modes)

    def _read(self, event: ResponseBody, _now_s: float) -> Replies:
        self._response_messages += 1
        reader = self._reader
        assert reader is not None
        try:
            reader.feed(event.data)
            if event.end_of_stream or reader.complete:
                self._learn(reader)
        except ResponseNotUnderstood as error:
            self._not_learned(error.fault)
        return _CONTINUE_RESPONSE if self._duplex is None else neutral_replies(event, self._modes)

    def _read_trailers(self, event: ResponseTrailers, _now_s: float) -> Replies:
        assert self._reader is not None
        self._learn(self._reader)
        return neutral_replies(event, self._modes)

    def _learn(self, reader: UsageReader) -> None:
        assert self._kept is not None
        self.state = State.PASSING
        try:
            self._router.learner.learn(self._kept, self._response_head, reader.finish())
        except ResponseNotUnderstood as error:
            self._not_learned(error.fault)

    def _not_learned(self, fault: ResponseFault) -> None:
        assert self._kept is not None
        self.state = State.PASSING
        self._router.learner.not_learned(self._kept, fault)

    # PASSING, and any state

    def _pass(self, event: Event, _now_s: float) -> Replies:
        self.state = State.PASSING
        return neutral_replies(event, self._modes)

    def _pass_trailers(self, event: RequestTrailers, _now_s: float) -> Replies:
        return neutral_replies(event, self._modes)

    def _drain(self, _event: Drain, _now_s: float) -> Replies:
        self._draining = True
        return ()

    def _break(self, event: Broken, _now_s: float) -> Replies:
        self._router.listener.failed(event.error)
        self.state, self._headers_held, self._held = State.PASSING, False, []
        return (Abort(),) if self._duplex is not None and self._duplex.loses(event) else ()

    def _untouched(self, event: Event) -> Replies:
        among_held = any(held is event for held in self._held)
        replies = [*self._send_held(None, State.PASSING)]
        return replies if among_held else [*replies, *neutral_replies(event, self._modes)]

    def _closing(self, replies: Replies) -> Replies:
        """Return the last replies of a stream: a close stands for all but what carries a decision (rule 4)."""
        if self._duplex is None:
            return [*(reply for reply in replies if getattr(reply, "decision", None) is not None), Close()]
        if self._duplex.under_way or Abort() in replies:
            return replies
        return [*replies, Close()]


Handler = Callable[[Exchange, Any, float], Replies]
_HANDLERS: Final[dict[State, dict[type, Handler]]] = {
    state: {row.event: getattr(Exchange, f"_{row.handler}") for row in TRANSITIONS if row.state is state}
    for state in State
}


def _body_modes(modes: Modes) -> tuple[BodyMode, BodyMode]:
    return modes.request_body, modes.response_body


def _misconfiguration(modes: Modes) -> Misconfiguration | None:
    if modes.request_body in (BodyMode.NONE, BodyMode.OTHER):
        return Misconfiguration.NO_REQUEST_BODY
    if modes.request_body is BodyMode.STREAMED and not modes.body_without_waiting:
        return Misconfiguration.STREAMED_WITHOUT_FLAG
    return None
