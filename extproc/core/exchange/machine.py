"""One HTTP exchange, request and response, as a state machine: events in, replies out, no I/O.

transitions.py has the table that says which action is taken when; the rules are the package's (`__init__.py`).
"""

from collections.abc import Callable
from typing import Any, Final

from extproc.core.errors import ResponseFault, ResponseNotUnderstood
from extproc.core.exchange.events import (
    Abort,
    BodyMode,
    Broken,
    ContinueBody,
    ContinueHeaders,
    Event,
    Modes,
    Phase,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.core.exchange.held import Held
from extproc.core.exchange.kept import Kept
from extproc.core.exchange.replies import NEUTRAL, DuplexBodies, Replies, closing, neutral_replies
from extproc.core.exchange.transitions import TRANSITIONS, State
from extproc.core.listener import Misconfiguration
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Reason
from extproc.core.router.router import Router

__all__ = ["Exchange"]


class Exchange:
    """The state of one stream. `modes` comes from the gateway's first message."""

    __slots__ = (
        *("_closes", "_draining", "_duplex", "_held", "_holds_response", "_kept", "_modes", "_router"),
        "state",
    )

    def __init__(self, router: Router, modes: Modes) -> None:
        self.state = State.OPEN
        self._router = router
        self._modes = modes
        self._duplex = DuplexBodies(modes) if modes.full_duplex else None
        self._draining = self._holds_response = False
        self._closes = router.closes_streams
        self._held: Held | None = None
        self._kept: Kept | None = None

    @property
    def holding(self) -> bool:
        """Whether headers wait for us, so that they need a Deadline in case their body does not arrive."""
        return self._holds_response or (self._held is not None and self._modes.holds_headers)

    @property
    def undecided(self) -> bool:
        """Whether the exchange has a request that is not yet decided."""
        return self.state is State.COLLECTING

    def handle(self, event: Event, now_s: float) -> Replies:
        """Process one event; return the replies, in order. Never raises."""
        if self._duplex is not None:
            self._duplex.observe(event)
        held_response, self._holds_response = self._holds_response, False
        try:
            replies = _HANDLERS[self.state].get(type(event), Exchange._pass)(self, event, now_s)
        except Exception as error:  # noqa: BLE001  (rule 6)
            self._router.listener.failed(error)
            replies = self._untouched(event)
        if held_response:
            replies = [*NEUTRAL[ResponseHeaders], *replies]
        is_over = self.state is State.PASSING or (self._draining and not self.holding)
        if is_over and (self._closes or isinstance(event, Broken)):
            return closing(replies, self._duplex)
        return replies

    def end(self) -> None:
        """Learn from the response, if it is complete; called when the stream is over, whichever side ended it.

        A response that was not read to its end, or did not begin, is counted. May raise: an exception in learning
        affects no request any more.
        """
        kept, cut_short = self._kept, self.state in (State.AWAITING, State.READING)
        self.state, self._kept = State.PASSING, None
        if kept is not None:
            kept.end(cut_short=cut_short)

    # OPEN

    def _open(self, event: RequestHeaders, now_s: float) -> Replies:
        router, modes = self._router, self._modes
        api = router.api_of(event.head)
        if api is None:
            return self._pass(event, now_s)
        if event.end_of_stream:
            router.listener.passed()
            return self._pass(event, now_s)
        if modes.fault is not None:
            router.listener.misconfigured(modes.fault)
            return self._pass(event, now_s)
        for doubt in modes.doubts:
            router.listener.misconfigured(doubt)
        self.state = State.COLLECTING
        self._held = Held(api, event.head, router.placer.early)
        return () if modes.holds_headers else neutral_replies(event, modes)

    def _open_headless(self, event: Event, now_s: float) -> Replies:
        self._router.listener.misconfigured(Misconfiguration.NO_REQUEST_HEADERS)
        return self._pass(event, now_s)

    # COLLECTING

    def _collect(self, event: RequestBody, now_s: float) -> Replies:
        held, mode = self._held, self._modes.request_body
        assert held is not None
        held.pieces.append(event)
        held.size_bytes += len(event.data)
        if event.end_of_stream or mode is BodyMode.BUFFERED:
            return self._decide(now_s)
        if mode is BodyMode.BUFFERED_PARTIAL:
            return self._give_up(Reason.CUT_OFF)
        if held.size_bytes >= held.next_look_bytes and held.is_enough(self._router.placer.early):
            return self._give_up(Reason.EARLY)
        return ()

    def _collect_trailers(self, event: Event, now_s: float) -> Replies:
        if not self._modes.holds_headers:
            return self._pass(event, now_s)
        return [*self._decide(now_s), *neutral_replies(event, self._modes)]

    def _decide(self, now_s: float) -> Replies:
        held = self._held
        assert held is not None
        decision = self._router.decide(held.api, held.head, held.body())
        readable = self._modes.stream_readable if decision.stream else self._modes.response_readable
        if readable and self._router.learner.keeps(decision, now_s):
            self._kept = Kept(self._router.learner, decision)
            return self._send_held(decision, State.AWAITING)
        return self._release(decision)

    def _miss_deadline(self, _event: Event, _now_s: float) -> Replies:
        return self._give_up(Reason.DEADLINE) if self._modes.holds_headers else ()

    def _shed(self, _event: Event, _now_s: float) -> Replies:
        return self._give_up(Reason.SHED)

    def _responded_by_others(self, event: ResponseHeaders, now_s: float) -> Replies:
        self._router.listener.not_learned(ResponseFault.EARLY_RESPONSE)
        return [*self._send_held(None, State.PASSING), *self._pass(event, now_s)]

    def _give_up(self, reason: Reason) -> Replies:
        assert self._held is not None
        return self._release(self._router.unsure(self._held.api, reason, self._held.size_bytes, self._held.head))

    def _release(self, decision: Decision) -> Replies:
        self._router.listener.released(decision)
        return self._send_held(decision, State.PASSING)

    def _send_held(self, decision: Decision | None, state: State) -> Replies:
        """Reply to all held messages, in order; the decision goes with the held headers, else with the body."""
        held, holds_headers = self._held, self._modes.holds_headers
        pieces = () if held is None else held.pieces
        replies: list[Reply] = []
        if held is not None and holds_headers:
            replies.append(ContinueHeaders(Phase.REQUEST, decision))
        if pieces and decision is not None and not holds_headers:
            replies.append(ContinueBody(Phase.REQUEST, decision))
        # Without full duplex, a close replaces the replies to all body messages.
        elif state is not State.PASSING or self._duplex is not None or not self._closes:
            for piece in pieces:
                replies += neutral_replies(piece, self._modes)
        self.state, self._held = state, None
        return replies

    # AWAITING, READING

    def _open_response(self, event: ResponseHeaders, now_s: float) -> Replies:
        assert self._kept is not None
        self._kept.messages += 1
        if not self._kept.opens(event.head):
            return self._pass(event, now_s)
        self.state = State.READING
        if event.end_of_stream:
            self._complete()
        elif self._modes.response_without_waiting and self._kept.reader.expects_one_piece:
            self._holds_response = True  # rule 7
            return ()
        return neutral_replies(event, self._modes)

    def _open_headless_response(self, event: ResponseBody, now_s: float) -> Replies:
        assert self._kept is not None
        self._kept.messages += 1
        self._router.listener.misconfigured(Misconfiguration.NO_RESPONSE_HEADERS)
        return self._pass(event, now_s)

    def _read(self, event: ResponseBody, _now_s: float) -> Replies:
        kept = self._kept
        assert kept is not None
        kept.messages += 1
        try:
            kept.reader.feed(event.data)
            if event.end_of_stream or kept.reader.complete:
                self._complete()
        except ResponseNotUnderstood as error:
            self.state = State.PASSING
            kept.not_learned(error.fault)
        return NEUTRAL[ResponseBody] if self._duplex is None else neutral_replies(event, self._modes)

    def _read_trailers(self, event: Event, _now_s: float) -> Replies:
        self._complete()
        return neutral_replies(event, self._modes)

    def _complete(self) -> None:
        assert self._kept is not None
        self.state, self._kept.complete = State.PASSING, True

    # PASSING, and any state

    def _pass(self, event: Event, _now_s: float) -> Replies:
        self.state = State.PASSING
        return neutral_replies(event, self._modes)

    def _forward(self, event: Event, _now_s: float) -> Replies:
        return neutral_replies(event, self._modes)

    def _drain(self, _event: Event, _now_s: float) -> Replies:
        self._draining = True
        return ()

    def _break(self, event: Broken, _now_s: float) -> Replies:
        self._router.listener.failed(event.error)
        self.state, self._held = State.PASSING, None
        return (Abort(),) if self._duplex is not None and self._duplex.loses(event) else ()

    def _untouched(self, event: Event) -> Replies:
        among_held = self._held is not None and any(piece is event for piece in self._held.pieces)
        replies = [*self._send_held(None, State.PASSING)]
        return replies if among_held else [*replies, *neutral_replies(event, self._modes)]


_HANDLERS: Final[dict[State, dict[type, Callable[[Exchange, Any, float], Replies]]]] = {
    state: {row.event: getattr(Exchange, f"_{row.handler}") for row in TRANSITIONS if row.state is state}
    for state in State
}
