import asyncio

from extproc.server.deadlines import Deadlines

AFTER_S = 0.01


class Waiting:
    """A stream that waits until it is answered, and remembers that its deadline came."""

    def __init__(self) -> None:
        self.waits = True
        self.overdue = asyncio.Event()

    def on_deadline(self) -> None:
        """Be answered."""
        self.waits = False
        self.overdue.set()


class Counted(Deadlines):
    """Deadlines that count how often their timer comes."""

    fired = 0

    def _on_timer(self) -> None:
        self.fired += 1
        super()._on_timer()


def test_only_streams_that_still_wait_hear_of_their_deadline() -> None:
    """Each stream that waits is told, in order; one that was answered in time is not."""

    async def told() -> list[bool]:
        deadlines, now_s = Deadlines(AFTER_S), asyncio.get_running_loop().time()
        streams = [Waiting() for _ in range(4)]
        for position, stream in enumerate(streams):
            deadlines.add(stream, now_s + position / 1_000)
        streams[1].waits = False
        await asyncio.wait_for(streams[3].overdue.wait(), 5)
        return [stream.overdue.is_set() for stream in streams]

    assert [True, False, True, True] == asyncio.run(told())


def test_answered_streams_are_dropped_with_the_first_that_is_due() -> None:
    """For a thousand streams that were answered in time the timer comes once, and once for the late one."""

    async def fired() -> int:
        deadlines, now_s = Counted(AFTER_S), asyncio.get_running_loop().time()
        for position in range(1_000):
            answered = Waiting()
            deadlines.add(answered, now_s + position / 1_000_000)
            answered.waits = False
        late = Waiting()
        deadlines.add(late, now_s + 0.02)
        await asyncio.wait_for(late.overdue.wait(), 5)
        return deadlines.fired

    assert 2 == asyncio.run(fired())
