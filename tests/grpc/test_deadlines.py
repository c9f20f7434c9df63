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
