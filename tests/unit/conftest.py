"""Shared by the pure tests: a router whose listener remembers, and a gateway that is as strict as Envoy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from extproc.core.estimator import make_estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.exchange.events import (
    BodyMode,
    Close,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Event,
    Modes,
    Phase,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from extproc.core.exchange.machine import Exchange
from extproc.core.exchange.settings import ExchangeSettings
from extproc.core.listener import Listener
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Pool, Pools
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSettings
from extproc.core.router.placer import Placer
from extproc.core.router.router import Router


class Recorder(Listener):
    """A Listener that remembers every call as (name, arguments)."""

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
    """One exchange seen from Envoy: sends events, refuses responses that Envoy would refuse, keeps what went on.

    Each refusal is an AssertionError with Envoy's reason; see the rules in extproc/core/exchange/machine.py.
    """

    exchange: Exchange
    modes: Modes
    recorder: Recorder
    closed: bool = False
    decisions: list[Any] = field(default_factory=list)
    headers_owed: set[Phase] = field(default_factory=set)
    headers_answered: set[Phase] = field(default_factory=set)
    owed_bodies: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    sent: dict[Phase, bytes] = field(default_factory=lambda: dict.fromkeys(Phase, b""))
    echoed: dict[Phase, bytes] = field(default_factory=lambda: dict.fromkeys(Phase, b""))
    duplex_open: set[Phase] = field(default_factory=set)
    echo_ended: set[Phase] = field(default_factory=set)

    def send(self, event: Event, now_s: float = 0.0) -> None:
        """Send one event unless the stream is closed; check what comes back."""
        if self.closed:
            return
        self._note(event)
        for action in self.exchange.handle(event, now_s):
            self._check(action)

    def mode(self, phase: Phase) -> BodyMode:
        """Return how bodies of a phase are sent."""
        return self.modes.request_body if phase is Phase.REQUEST else self.modes.response_body

    def _note(self, event: Event) -> None:
        phase = Phase.REQUEST if type(event).__name__.startswith("Request") else Phase.RESPONSE
        duplex = self.mode(phase) is BodyMode.FULL_DUPLEX_STREAMED
        if isinstance(event, RequestHeaders | ResponseHeaders):
            self.headers_owed.add(phase)
            if duplex and not event.end_of_stream:
                self.duplex_open.add(phase)
        if isinstance(event, RequestBody | ResponseBody):
            self.owed_bodies[phase] += 1
            self.sent[phase] += event.data
            if event.end_of_stream:
                self.duplex_open.discard(phase)
        if type(event).__name__.endswith("Trailers"):
            self.duplex_open.discard(phase)

    def _check(self, action: Reply) -> None:
        assert not self.closed, "a response after the close"
        match action:
            case Close():
                assert not self.duplex_open, "closing now would corrupt a full-duplex body"
                self.closed = True
            case ContinueHeaders(phase, decision):
                assert phase not in self.headers_answered, "spurious: headers answered twice"
                self.headers_answered.add(phase)
                self.headers_owed.discard(phase)
                self._mutate(phase, decision)
            case ContinueBody(phase, decision):
                assert self.mode(phase) is not BodyMode.FULL_DUPLEX_STREAMED, "full duplex needs an echo"
                self._check_body_turn(phase)
                self.owed_bodies[phase] -= 1
                assert self.owed_bodies[phase] >= 0, "spurious: more body responses than bodies"
                if decision is not None:
                    assert self.mode(phase) in (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL), "ignored by Envoy"
                self._mutate(phase, decision)
            case EchoBody(phase, data, ended):
                assert self.mode(phase) is BodyMode.FULL_DUPLEX_STREAMED, "an echo that nobody waits for"
                self._check_body_turn(phase)
                assert len(data) <= 62 * 1024, "Envoy refuses larger pieces"
                assert phase not in self.echo_ended, "a piece after the last"
                self.echoed[phase] += data
                if ended:
                    self.echo_ended.add(phase)
            case ContinueTrailers():
                pass

    def _check_body_turn(self, phase: Phase) -> None:
        assert phase not in self.headers_owed, "spurious: a body answered before the headers"

    def _mutate(self, phase: Phase, decision: Any) -> None:
        if decision is not None:
            assert phase is Phase.REQUEST
            self.decisions.append(decision)


Connect = Callable[..., StrictGateway]


@pytest.fixture(scope="session")
def connect() -> Connect:
    """Return a function that opens one exchange with a fresh router (or a given one) in the given modes."""

    def opened(modes: Modes, router: Router | None = None, **settings: Any) -> StrictGateway:
        if router is None:
            router = make_router(**settings)
        assert isinstance(router.listener, Recorder)
        return StrictGateway(Exchange(router, modes), modes, router.listener)

    return opened


def make_router(
    mode: Mode = Mode.ENFORCE,
    pools: tuple[Pool, ...] = (Pool("short", 1_000), Pool("long", 100_000)),
    learning: LearningSettings | None = None,
    **settings: Any,
) -> Router:
    """Return a router whose listener is a Recorder; `settings` are those of an exchange."""
    recorder, estimator = Recorder(), make_estimator(EstimatorSettings(default_output_tokens=100))
    exchange = ExchangeSettings(**settings)
    placer = Placer(mode, Pools(pools), estimator, exchange.max_held_bytes)
    budget = LearningBudget(learning or LearningSettings())
    learner = Learner(Pools(pools), estimator, budget, recorder, exchange.max_response_bytes)
    return Router(mode, placer, learner, recorder)
