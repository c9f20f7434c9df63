"""The core: events that are waiting are handled together, and what their handlers send is submitted afterwards."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from extproc.server import grpc_core
from extproc.server.grpc_core import LARGE_BYTES, LOOK_AFTER, RUN_S, TAKEN_AT_ONCE, Call, Core
from extproc.server.grpc_private import TIMEOUT

TOO_MANY_OPERATIONS = 8  # grpc_call_error


class Queue:
    """A completion queue with scripted events; it counts the polls that find nothing."""

    def __init__(self) -> None:
        self.events: deque[Any] = deque()
        self.found_nothing = 0

    def poll(self, _deadline: float) -> Any:
        """Return the next event, or a timeout."""
        if self.events:
            return self.events.popleft()
        self.found_nothing += 1
        return SimpleNamespace(completion_type=TIMEOUT)

    def completes(self, tag: Callable[[Any], None]) -> None:
        """Add an event with a tag."""
        self.events.append(SimpleNamespace(completion_type=None, tag=tag))


class Submitted:
    """The library's side of a call: it records what is submitted and what is cancelled."""

    def __init__(self, log: list[str], name: str = "submitted") -> None:
        self._log = log
        self._name = name

    def start_server_batch(self, _operations: Any, _tag: Any) -> int:
        """Record a batch; return no error."""
        self._log.append(self._name)
        return 0

    def cancel(self, _code: int, _details: bytes) -> None:
        """Record that the call was cancelled."""
        self._log.append(f"{self._name} cancelled")


class Handler:
    """A handler that does nothing."""

    def on_message(self, _message: bytes) -> None:
        """Ignore it."""

    def on_end(self) -> None:
        """Ignore it."""


class Refusing(Submitted):
    """A call whose batches the library refuses, by its result or by an exception."""

    def __init__(self, log: list[str], *, raises: bool) -> None:
        super().__init__(log, "refused")
        self._raises = raises

    def start_server_batch(self, _operations: Any, _tag: Any) -> int:
        """Refuse a batch."""
        if self._raises:
            raise RuntimeError("refused")
        return TOO_MANY_OPERATIONS


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    """The queue of the next core, for which no time passes."""
    scripted = Queue()
    monkeypatch.setattr(grpc_core, "CompletionQueue", lambda: scripted)
    monkeypatch.setattr(grpc_core, "time", SimpleNamespace(monotonic=lambda: 0.0, time=lambda: 0.0))
    return scripted


@pytest.fixture
def core(queue: Queue) -> Core:
    """A core that has found out that events come several at a time."""
    made = Core()
    for _ in range(LOOK_AFTER - 1):
        queue.completes(lambda _: None)
        made.poll(0)
    for _ in range(2):
        queue.completes(lambda _: None)
    made.poll(0)
    assert not queue.events
    queue.found_nothing = 0
    return made


def sends(core: Core, submitted: Submitted) -> Callable[[Any], None]:
    """Return a handler that sends something on a call."""
    call = Call(submitted, core._batches.append, lambda _call: None)
    call.handler = Handler()
    return lambda _: call.mark(lambda: None)


def test_waiting_events_are_handled_before_anything_is_submitted(core: Core, queue: Queue) -> None:
    """All handlers run, and then everything that they sent is submitted, in the order in which it was sent."""
    log: list[str] = []

    def adds(name: str) -> None:
        reply = sends(core, Submitted(log, f"{name} submitted"))

        def handler(event: Any) -> None:
            log.append(f"{name} handled")
            reply(event)

        queue.completes(handler)

    for name in ("first", "second", "third"):
        adds(name)
    assert core.poll(0)
    assert log == [f"{name} {what}" for what in ("handled", "submitted") for name in ("first", "second", "third")]


def test_only_so_many_events_are_taken_at_once(core: Core, queue: Queue) -> None:
    """A flood does not delay replies without end: what was sent so far is submitted after TAKEN_AT_ONCE events."""
    handled: list[int] = []
    for _ in range(TAKEN_AT_ONCE + 1):
        queue.completes(lambda _: handled.append(len(handled)))
    core.poll(0)
    assert len(handled) == TAKEN_AT_ONCE
    core.poll(0)
    assert handled == list(range(TAKEN_AT_ONCE + 1))


@pytest.mark.parametrize(("size_bytes", "together"), [(LARGE_BYTES, True), (LARGE_BYTES + 1, False)])
def test_a_large_message_is_the_last_that_is_taken(
    core: Core, queue: Queue, monkeypatch: pytest.MonkeyPatch, size_bytes: int, *, together: bool
) -> None:
    """What is taken together is held in memory twice, by the library and by us; so this is bounded."""

    class Received:
        def message(self) -> bytes:
            return bytes(size_bytes)

    monkeypatch.setattr(grpc_core, "Receive", Received)
    for _ in range(2):
        queue.completes(lambda _: None)
        queue.events[-1].batch_operations = [Received()]
    core.poll(0)
    assert together == (not queue.events)


def test_replies_do_not_wait_for_slow_handlers(core: Core, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """After RUN_S, what was sent so far is submitted; the events that are left come next, without a poll."""
    log: list[str] = []
    now_s = [0.0]
    monkeypatch.setattr(grpc_core, "time", SimpleNamespace(monotonic=lambda: now_s[0], time=lambda: 0.0))
    reply = sends(core, Submitted(log))

    def slow(event: Any) -> None:
        now_s[0] += RUN_S
        reply(event)

    queue.completes(slow)
    queue.completes(lambda _: log.append("next"))
    core.poll(0)
    assert log == ["submitted"]
    core.poll(0)
    assert log == ["submitted", "next"]


def test_an_exception_loses_no_event_and_no_reply(core: Core, queue: Queue) -> None:
    """It is raised; what was sent before is submitted, and the next poll handles the other events."""
    log: list[str] = []

    def broken(_event: Any) -> None:
        raise KeyError("a fault of ours")

    queue.completes(sends(core, Submitted(log)))
    queue.completes(broken)
    queue.completes(lambda _: log.append("next"))
    with pytest.raises(KeyError):
        core.poll(0)
    assert log == ["submitted"]
    core.poll(0)
    assert log == ["submitted", "next"]


@pytest.mark.parametrize("raises", [False, True])
def test_a_batch_that_is_refused_ends_its_call_only(core: Core, queue: Queue, *, raises: bool) -> None:
    """Its call is cancelled and the fault raised; the batches of other calls are submitted by the next poll."""
    log: list[str] = []
    queue.completes(sends(core, Refusing(log, raises=raises)))
    queue.completes(sends(core, Submitted(log)))
    with pytest.raises(RuntimeError):
        core.poll(0)
    assert log == ["refused cancelled"]
    core.poll(0)
    assert log == ["refused cancelled", "submitted"]


def test_what_timers_send_is_submitted_before_the_wait_for_events(core: Core, queue: Queue) -> None:
    """A reply at a deadline does not wait for the next event."""
    log: list[str] = []
    sends(core, Submitted(log))(None)
    assert not core.poll(0)
    assert log == ["submitted"]
    assert queue.found_nothing == 1


def test_single_events_cost_few_polls_that_find_nothing(core: Core, queue: Queue) -> None:
    """While events come one at a time, only one in LOOK_AFTER is followed by a look for more."""
    for _ in range(10 * LOOK_AFTER):
        queue.completes(lambda _: None)
        core.poll(0)
    assert queue.found_nothing <= 10 + 1
