"""Fixtures of the pure tests: a router whose listener records its calls, and a gateway as strict as Envoy."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import Estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.exchange.events import (
    Abort,
    BodyMode,
    Close,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    Drain,
    EchoBody,
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
)
from extproc.core.exchange.machine import Exchange
from extproc.core.exchange.settings import CloseRule, ExchangeSettings
from extproc.core.listener import Listener
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.router.router import Router
from tests.unit.redis_server import RedisServer, redis_server


class Recorder(Listener):
    """A Listener that records every call as (name, arguments)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for name in (name for name in vars(Listener) if not name.startswith("_")):
            setattr(self, name, partial(self._record, name))

    def _record(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, arguments))

    def calls_of(self, name: str) -> list[Any]:
        """Return the first argument of every call with this name."""
        return [arguments[0] if arguments else None for arguments in self.arguments_of(name)]

    def arguments_of(self, name: str) -> list[tuple[Any, ...]]:
        """Return the arguments of every call with this name."""
        return [arguments for called, arguments in self.calls if called == name]


@dataclass
class StrictGateway:
    """One exchange seen from Envoy: sends events, rejects replies that Envoy would reject, records what passes.

    Each rejection is an AssertionError with Envoy's reason; see the rules in extproc/core/exchange/__init__.py. So
    is a reply that never comes: Envoy would wait for it until its timeout.
    """

    exchange: Exchange
    modes: Modes
    recorder: Recorder
    learning: LearningBudget
    estimator: Estimator
    another: Callable[[], "StrictGateway"]  # opens the next exchange of the same router
    closed: bool = False
    aborted: bool = False
    decisions: list[Any] = field(default_factory=list)
    headers_owed: set[Phase] = field(default_factory=set)
    headers_replied: set[Phase] = field(default_factory=set)
    owed_bodies: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    trailers_owed: set[Phase] = field(default_factory=set)
    sent: dict[Phase, bytes] = field(default_factory=lambda: dict.fromkeys(Phase, b""))
    echoed: dict[Phase, bytes] = field(default_factory=lambda: dict.fromkeys(Phase, b""))
    duplex_open: set[Phase] = field(default_factory=set)
    sent_ended: set[Phase] = field(default_factory=set)
    echo_ended: set[Phase] = field(default_factory=set)

    def send(self, event: Event, now_s: float = 0.0) -> None:
        """Send one event unless the stream is closed; check the replies, including those that are missing."""
        if self.closed:
            return
        self._note(event)
        for reply in self.exchange.handle(event, now_s):
            self._check(reply)
        if self.closed:
            self.exchange.end()
        else:
            self._check_liveness(event)

    def send_all(self, events: Iterable[Event]) -> None:
        """Send one event after the other."""
        for event in events:
            self.send(event)

    def mode(self, phase: Phase) -> BodyMode:
        """Return the mode in which bodies of a phase are sent."""
        return self.modes.request_body if phase is Phase.REQUEST else self.modes.response_body

    def owed(self, phase: Phase) -> list[str]:
        """Return the parts of a phase that have not been replied to."""
        debts = {
            "headers": phase in self.headers_owed,
            "bodies": self.owed_bodies[phase] > 0,
            "trailers": phase in self.trailers_owed,
            "bytes": self._duplex(phase) and self.echoed[phase] != self.sent[phase],
            "the end of a body": self._duplex(phase) and phase in self.sent_ended - self.echo_ended,
        }
        return [name for name, owed in debts.items() if owed]

    def _duplex(self, phase: Phase) -> bool:
        return self.mode(phase) is BodyMode.FULL_DUPLEX_STREAMED

    def _note(self, event: Event) -> None:
        phase = _phase(event)
        if isinstance(event, RequestHeaders | ResponseHeaders):
            self.headers_owed.add(phase)
            if self._duplex(phase) and not event.end_of_stream:
                self.duplex_open.add(phase)
        if isinstance(event, RequestBody | ResponseBody):
            self.owed_bodies[phase] += not self._duplex(phase)
            self.sent[phase] += event.data
            if event.end_of_stream:
                self.duplex_open.discard(phase)
                self.sent_ended.add(phase)
        if isinstance(event, RequestTrailers | ResponseTrailers):
            self.duplex_open.discard(phase)
            self.trailers_owed.add(phase)

    def _check_liveness(self, event: Event) -> None:
        """Check that replies are owed only while the gateway sends more without them, and until a deadline."""
        at_once = self.modes.body_without_waiting and self.modes.request_body is BodyMode.STREAMED
        more = isinstance(event, Drain) or (
            isinstance(event, RequestHeaders | RequestBody) and not event.end_of_stream
        )
        if not (more and (at_once or self._duplex(Phase.REQUEST))):
            assert [] == self.owed(Phase.REQUEST), "the request would wait forever"
        body_follows = isinstance(event, ResponseHeaders) and not event.end_of_stream
        may_wait = at_once and body_follows and self.modes.response_body is BodyMode.STREAMED
        assert self.owed(Phase.RESPONSE) in ([], ["headers"] * may_wait), "the response would wait forever"
        for phase in Phase:
            assert self.exchange.holding or [] == self.owed(phase), "no deadline would end the wait"

    def _check(self, reply: Reply) -> None:
        assert not self.closed, "a reply after the close"
        match reply:
            case Close():
                assert not self.duplex_open, "closing now would corrupt a full-duplex body"
                for phase in filter(self._duplex, Phase):
                    assert self.echoed[phase] == self.sent[phase], "closing now would lose bytes"
                self.closed = True
            case ContinueHeaders(phase, decision):
                assert phase not in self.headers_replied, "spurious: headers replied to twice"
                self.headers_replied.add(phase)
                self.headers_owed.discard(phase)
                self._mutate(phase, decision)
            case ContinueBody(phase, decision):
                assert not self._duplex(phase), "full duplex needs an echo"
                self._check_body_turn(phase)
                self.owed_bodies[phase] -= 1
                assert self.owed_bodies[phase] >= 0, "spurious: more body replies than bodies"
                if decision is not None:
                    assert self.mode(phase) in (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL), "ignored by Envoy"
                self._mutate(phase, decision)
            case EchoBody(phase, data, ended):
                assert self._duplex(phase), "an echo outside full duplex"
                self._check_body_turn(phase)
                assert len(data) <= 62 * 1024, "Envoy rejects larger pieces"
                assert phase not in self.echo_ended, "a piece after the last one"
                self.echoed[phase] += data
                assert self.sent[phase].startswith(self.echoed[phase]), "different bytes from those sent"
                if ended:
                    assert phase in self.sent_ended, "the end of a body that has not ended"
                    self.echo_ended.add(phase)
            case Abort():
                assert any(map(self._duplex, Phase)), "an abort where a close would lose nothing"
                self.closed = self.aborted = True
            case ContinueTrailers(phase):
                assert phase in self.trailers_owed, "spurious: trailers that were not sent"
                self.trailers_owed.discard(phase)

    def _check_body_turn(self, phase: Phase) -> None:
        assert phase not in self.headers_owed, "spurious: a body replied to before the headers"

    def _mutate(self, phase: Phase, decision: Any) -> None:
        if decision is not None:
            assert phase is Phase.REQUEST
            assert not self.decisions, "a second decision"
            self.decisions.append(decision)


def _phase(event: Event) -> Phase:
    of_response = isinstance(event, ResponseHeaders | ResponseBody | ResponseTrailers)
    return Phase.RESPONSE if of_response else Phase.REQUEST


Connect = Callable[..., StrictGateway]
TWO_POOLS = (Pool("short", 1_000), Pool("long", 100_000))
ESTIMATOR = EstimatorSettings(default_output_tokens=100)


def make_router(
    mode: Mode = Mode.ENFORCE,
    pools: Sequence[Pool] = TWO_POOLS,
    estimator: EstimatorSettings = ESTIMATOR,
    learning: LearningSettings | None = None,
    **settings: Any,
) -> Router:
    """Return a new router whose listener is a Recorder; `settings` are those of an exchange."""
    recorder, estimates, exchange = Recorder(), make_estimator(estimator), ExchangeSettings(**settings)
    placer = Placer(mode, Pools(pools), estimates, exchange.max_held_bytes)
    budget = LearningBudget(learning or LearningSettings())
    learner = Learner(Pools(pools), estimates, budget, recorder, exchange.max_response_bytes)
    closes = exchange.close is CloseRule.WHEN_HARMLESS
    return Router(mode, placer, learner, recorder, closes_streams=closes)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run an empty store."""
    with redis_server(tmp_path) as serving:
        yield serving


@pytest.fixture(scope="session")
def connect() -> Connect:
    """Return a function that opens one exchange in the given modes; its other arguments configure a new router."""

    def opened(modes: Modes, **settings: Any) -> StrictGateway:
        router = make_router(**settings)
        recorder, budget, estimates = router.listener, router.learner.budget, router.placer.estimator
        assert isinstance(recorder, Recorder)

        def stream() -> StrictGateway:
            return StrictGateway(Exchange(router, modes), modes, recorder, budget, estimates, stream)

        return stream()

    return opened
