"""How much of the router's time entries of the gateway's access log take, by a clock that only work moves."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from extproc.access_log.entry import LogEntry
from extproc.access_log.teacher import Outcome
from extproc.server import access_logs
from extproc.server.access_logs import BURST_S, MAX_MESSAGE_BYTES, SLICE_S, AccessLogs

ENTRY_S = 0.0001
EVENT_S = 0.001  # what the router does between two slices


class Router:
    """The loop, the clock and the gateway: each of `streams` streams always has another message to send, and is
    opened anew when the router ends it.

    `worked_s` is the time that entries took, `longest_s` the most of it without other events in between.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, streams: int, share: float, *, decode_s: float) -> None:
        self.now_s = self.worked_s = self.longest_s = self._run_s = 0.0
        self.share: float | None = share
        self.taken: Counter[int] = Counter()
        self._due: deque[Callable[[], None]] = deque()
        self._decode_s = decode_s
        self.entries = 100
        monkeypatch.setattr(
            access_logs, "time", SimpleNamespace(monotonic=lambda: self.now_s, time=lambda: self.now_s)
        )
        monkeypatch.setattr(access_logs, "decode_log", self._decode)
        metrics: Any = SimpleNamespace(access_log_entries=Counter())
        self.logs = AccessLogs(self._teaching, metrics)
        self.calls = [self._open(number) for number in range(streams)]

    def _open(self, number: int) -> SimpleNamespace:
        call: Any = SimpleNamespace(finished=False, mark=self._due.append)
        call.send = lambda: self._due.append(lambda: self._deliver(call, number))

        def finish(*_: object, **refused: object) -> None:
            call.finished = True
            if not refused:
                self._due.append(lambda: self.calls.append(self._open(number)))

        call.finish = finish
        self.logs.serve(call)
        return cast("SimpleNamespace", call)

    def run(self, until_s: float) -> None:
        """Let time pass: events one after another, or the timer if there are none."""
        while self.now_s < until_s:
            if self._due:
                self._due.popleft()()
            elif self.logs.next_s < until_s:
                self.now_s = max(self.now_s, self.logs.next_s)
                self.logs.expire(self.now_s)
            else:
                self.now_s = until_s
            self._run_s = 0.0
            self.now_s += EVENT_S

    def _teaching(self) -> Any:
        if self.share is None:
            return None
        return SimpleNamespace(teacher=SimpleNamespace(take=self._take), max_cpu_share=self.share)

    def _deliver(self, call: Any, number: int) -> None:
        call.handler.on_message(b"%d" % number)

    def _work(self, seconds: float) -> None:
        self.now_s += seconds
        self.worked_s += seconds
        self._run_s += seconds
        self.longest_s = max(self.longest_s, self._run_s)

    def _decode(self, message: bytes, _most: int) -> list[LogEntry]:
        self._work(self._decode_s)
        return [LogEntry(message.decode(), 200)] * self.entries

    def _take(self, entries: Sequence[LogEntry], _now_s: float) -> list[Outcome]:
        self._work(ENTRY_S * len(entries))
        self.taken.update(int(each.evidence) for each in entries)
        return [Outcome.TAUGHT] * len(entries)


@pytest.mark.parametrize("share", [0.01, 0.2])
@pytest.mark.parametrize(("entries", "decode_s"), [(100, 0.0), (100, 0.003), (0, 0.003)])
def test_entries_take_at_most_their_share(
    monkeypatch: pytest.MonkeyPatch, share: float, entries: int, decode_s: float
) -> None:
    """However many streams send, and whether messages have entries or none, they take their share and no more."""
    router = Router(monkeypatch, 3, share, decode_s=decode_s)
    router.entries = entries
    router.run(100.0)
    assert router.worked_s == pytest.approx(100 * share, rel=0.1, abs=BURST_S + 4 * decode_s)


def test_thousands_of_streams_take_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is not even decoded before there is time for it: whoever opens a stream for each takes no more."""
    router = Router(monkeypatch, 2_000, 0.05, decode_s=0.003)
    router.run(10.0)
    assert router.worked_s < 10.0 * 0.05 + BURST_S + 0.004


def test_streams_that_wait_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that there is time for one of them, one is resumed, and not all, to find that none is left."""
    router = Router(monkeypatch, 500, 0.05, decode_s=0.0)
    router.run(5.0)
    resumed: list[float] = []
    work = access_logs._LogStream.work

    def counted(stream: access_logs._LogStream, now_s: float) -> None:
        resumed.append(now_s)
        work(stream, now_s)

    monkeypatch.setattr(access_logs._LogStream, "work", counted)
    before_s = router.worked_s
    router.run(10.0)
    assert len(resumed) <= 2 * (router.worked_s - before_s) / SLICE_S


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_message_that_is_too_large_is_not_held(monkeypatch: pytest.MonkeyPatch, beyond: int) -> None:
    """While a stream waits for its turn, it holds no message that will not be read; it is counted at once."""
    router = Router(monkeypatch, streams=2, share=0.1, decode_s=0.0)
    while not router.logs.busy:
        router.run(router.now_s + EVENT_S)
    waiting = next(each for each in router.calls if each.handler not in router.logs._waiting)
    waiting.handler.on_message(bytes(MAX_MESSAGE_BYTES + beyond))
    held: Any = router.logs._waiting[-1]
    assert waiting.handler is held
    assert (held._message is None) is bool(beyond)
    assert beyond == router.logs.metrics.access_log_entries[Outcome.TOO_LARGE,]


def test_a_message_does_not_overtake_the_streams_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when there is time again: the stream that has waited longest is the first to be resumed."""
    router = Router(monkeypatch, streams=2, share=0.1, decode_s=0.0)
    while not router.logs.busy:
        router.run(router.now_s + EVENT_S)
    first, before = router.logs._waiting[0], router.taken.copy()
    other = next(each.handler for each in router.calls if each.handler is not first)
    router.now_s += 1.0
    other.on_message(b"1")
    assert (before, [first, other]) == (router.taken, list(router.logs._waiting))


def test_slices_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices of about half a millisecond other events are handled, though more would be allowed."""
    router = Router(monkeypatch, 2, 1.0, decode_s=0.0)
    router.run(1.0)
    assert router.longest_s < SLICE_S + 8 * ENTRY_S


def test_all_streams_that_wait_are_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams whose share is used up take turns."""
    router = Router(monkeypatch, 3, 0.05, decode_s=0.0)
    router.run(50.0)
    assert {0, 1, 2} == set(router.taken)
    assert min(router.taken.values()) > 0.5 * max(router.taken.values())


@pytest.mark.parametrize("share", [1.0, None])
def test_a_new_configuration_does_not_wait_for_the_old_share(
    monkeypatch: pytest.MonkeyPatch, share: float | None
) -> None:
    """Streams that wait for hours under the old share go on, or end if nothing is learned any more."""
    router = Router(monkeypatch, 1, 1e-6, decode_s=0.0)
    router.run(1.0)
    before = router.taken.total()
    router.share = share
    router.logs.resume()
    router.run(2.0)
    assert (router.taken.total() > before + 100, router.calls[0].finished) == (share is not None, share is None)


def test_a_stream_that_fails_ends_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception while a stream that waited is resumed ends that stream, which the gateway then opens anew; the
    streams that waited behind it are resumed all the same.
    """
    router = Router(monkeypatch, streams=3, share=0.1, decode_s=0.0)
    while len(router.logs._waiting) < 3:
        router.run(router.now_s + EVENT_S)
    take, router._take = router._take, lambda *_: 1 / 0  # type: ignore[assignment,method-assign]
    with pytest.raises(ZeroDivisionError):
        router.logs.expire(router.now_s + 1)
    router._take = take  # type: ignore[method-assign]
    before = router.taken.copy()
    router.run(router.now_s + 2)
    assert [True, False, False] == sorted((call.finished for call in router.calls), reverse=True)
    assert {number for number in range(3) if router.taken[number] > before[number]} == {
        number for number, call in enumerate(router.calls) if not call.finished
    }


def test_no_look_is_due_while_no_stream_waits() -> None:
    """The timer that resumes streams is due once after another configuration, then only for those that wait."""
    logs = AccessLogs(lambda: None, cast("Any", None))
    logs.resume()
    assert 0 == logs.next_s
    logs.expire(1.0)
    assert float("inf") == logs.next_s
