"""The processes of a search."""

from concurrent.futures import Future
from threading import Event

import pytest

from extproc.planning.simulation.processes import processes


def test_an_interruption_ends_searches_that_are_running_or_waiting() -> None:
    """Ctrl-C ends the processes at once, also those in the middle of a search; here none would ever end."""
    searches: list[Future[None]] = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(searches)
    assert [True] * 3 == [search.done() for search in searches]


def _interrupted(searches: list[Future[None]]) -> None:
    with processes(1) as pool:
        assert pool.submit(int).result() == 0  # the process is there
        searches += (pool.submit(_endless) for _ in range(3))
        raise KeyboardInterrupt


def _endless() -> None:
    Event().wait()
