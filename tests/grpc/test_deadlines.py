from hypothesis import given
from hypothesis import strategies as st

from extproc.server.deadlines import Deadlines

AFTER_S = 0.15


class Waiting:
    """A stream that waits for its decision, and records whether its deadline passed."""

    def __init__(self) -> None:
        self.waits = True
        self.overdue = False

    def on_deadline(self) -> None:
        """Stop waiting, as a stream does that is decided at its deadline."""
        self.waits = False
        self.overdue = True


def test_on_deadline_is_called_only_for_streams_that_still_wait() -> None:
    """`on_deadline` is called for each stream that still waits when it is due, not for one decided in time."""
    deadlines = Deadlines(AFTER_S)
    streams = [Waiting() for _ in range(4)]
    for began_s, stream in enumerate(streams):
        deadlines.add(stream, began_s)
    streams[1].waits = False
    deadlines.expire(2 + AFTER_S)
    assert [True, False, True, False] == [stream.overdue for stream in streams]
    assert 3 + AFTER_S == deadlines.next_s
    deadlines.expire(3 + AFTER_S)
    assert streams[3].overdue


def test_decided_streams_are_dropped_when_the_next_one_begins() -> None:
    """A thousand streams that were decided in time leave no entry in the queue when a new one begins."""
    deadlines = Deadlines(AFTER_S)
    for position in range(1_000):
        decided = Waiting()
        deadlines.add(decided, position)
        assert position + AFTER_S == deadlines.next_s
        decided.waits = False
    deadlines.add(Waiting(), 2_000)
    assert 2_000 + AFTER_S == deadlines.next_s
    deadlines.expire(2_000 + AFTER_S)
    assert float("inf") == deadlines.next_s


def test_decided_streams_behind_a_waiting_one_are_dropped_with_it() -> None:
    """When the first stream is due, the decided ones behind it are dropped, too."""
    deadlines = Deadlines(AFTER_S)
    streams = [Waiting() for _ in range(10)]
    for position, stream in enumerate(streams):
        deadlines.add(stream, position)
    for stream in streams[1:9]:
        stream.waits = False
    assert AFTER_S == deadlines.next_s
    deadlines.expire(AFTER_S)
    assert 9 + AFTER_S == deadlines.next_s


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), st.none() | st.integers(0, 100))))
def test_each_waiting_stream_is_released_at_its_own_deadline(
    streams: list[tuple[int, int, int | None]],
) -> None:
    """In whatever order streams with different delays are added, and whichever are decided meanwhile, each that
    still waits is released when it is due, and not before: `next_s` says when to look, and a look finds them all.
    """
    deadlines = Deadlines(50)
    left = sorted(streams, key=lambda stream: stream[0])
    waiting: list[tuple[float, int | None, Waiting]] = []
    for now_s in range(251):
        while left and left[0][0] == now_s:
            _, delay_s, decided_after_s = left.pop(0)
            waiting.append((now_s - delay_s + 50, decided_after_s and now_s + decided_after_s, Waiting()))
            deadlines.add(waiting[-1][-1], now_s - delay_s)
        if deadlines.next_s <= now_s:
            deadlines.expire(now_s)
        for due_s, decided_s, stream in waiting:
            assert stream.overdue or not stream.waits or due_s > now_s
            assert not stream.overdue or due_s <= now_s
            stream.waits = stream.waits and decided_s != now_s
