"""Pages that are cached because they are expensive to make."""

import json
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from extproc.config.schema import Configuration
from extproc.core.estimator.protocol import LearnedState
from extproc.server import admin
from extproc.server.admin import MAX_KEPT_S, Cached
from extproc.state.settings import StateSettings, StoreSettings
from extproc.workers.channel import ChannelClosed
from extproc.workers.pages import WorkerPages
from tests.grpc.test_state_changes import taught


class Clock:
    """A clock that the test sets; making a page takes `makes_s`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, makes_s: float) -> None:
        self.now_s = 1_000.0
        self.made = 0
        self._makes_s = makes_s
        monkeypatch.setattr(admin, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def make(self) -> bytes:
        """Return a page that differs from the one before."""
        self.now_s += self._makes_s
        self.made += 1
        return b"%d" % self.made


@pytest.mark.parametrize(("makes_s", "kept_s"), [(0.1, 2.0), (9.0, MAX_KEPT_S)])
def test_a_page_is_kept_for_twenty_times_its_making_but_not_long(
    makes_s: float, kept_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that took long to make, perhaps because a worker was stopped, is still replaced soon."""
    clock = Clock(monkeypatch, makes_s)
    page = Cached(clock.make)
    assert b"1" == page()
    clock.now_s += kept_s - 0.01
    assert b"1" == page()
    clock.now_s += 0.02
    assert b"2" == page()


def test_a_page_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is made again as soon as the version has changed, such as the processes of workers."""
    version, clock = [1, 2], Clock(monkeypatch, 0.1)
    page = Cached(clock.make, lambda: list(version))
    assert [b"1", b"1"] == [page(), page()]
    version[0] = 3
    assert [b"2", b"2"] == [page(), page()]


def test_a_page_that_was_being_made_during_a_change_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change while the page is being made counts: what was read before it may be in the page."""
    clock = Clock(monkeypatch, 0.1)

    def make() -> bytes:
        if not clock.made:
            page.forget()
        return clock.make()

    page = Cached(make)
    assert [b"1", b"2", b"2"] == [page(), page(), page()]


class Worker:
    """A worker that has learned, has exited, or hangs."""

    def __init__(self, number: int, learned: LearnedState | Exception) -> None:
        self.number, self.pid = number, number
        self._learned = learned

    def state(self) -> LearnedState:
        """Return what it has learned, or fail."""
        if isinstance(self._learned, Exception):
            raise self._learned
        return self._learned


def state_of(*learned: LearnedState | Exception, store: StoreSettings | None = None) -> tuple[int, int]:
    """Return the status of /state, and the responses that it shows."""
    configuration = Configuration(state=StateSettings(store=store))
    slots: Any = [Worker(number, each) for number, each in enumerate(learned)]
    pages = WorkerPages(slots, CollectorRegistry(), lambda: configuration, dict)
    status, _, body = pages.page("/state")
    if status != HTTPStatus.OK:
        assert b"worker 1 has not answered" in body
        return status, 0
    return status, sum(int(each["observations"]) for each in json.loads(body)["models"])


def test_the_state_of_workers_is_complete_or_missing() -> None:
    """What a worker that hangs knows is not silently left out; one that has exited knows nothing."""
    assert (200, 5) == state_of(taught(2), taught(3))
    assert (200, 2) == state_of(taught(2), ChannelClosed())
    assert (503, 0) == state_of(taught(2), TimeoutError())
    assert (200, 0) == state_of(ChannelClosed(), ChannelClosed())


def test_with_a_store_one_worker_is_enough() -> None:
    """Workers that share know the same, so only one has to answer."""
    store = StoreSettings("redis://127.0.0.1/0")
    assert (200, 2) == state_of(taught(2), taught(2), store=store)
    assert (200, 2) == state_of(taught(2), TimeoutError(), store=store)
    assert (200, 2) == state_of(ChannelClosed(), taught(2), store=store)
    assert (503, 0) == state_of(ChannelClosed(), TimeoutError(), store=store)
