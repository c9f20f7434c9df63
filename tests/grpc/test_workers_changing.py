"""A supervisor whose workers hang, or do not run, while their configuration changes or they are to end."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extproc.config.loading import parse
from extproc.core.errors import ConfigurationError
from extproc.workers.channel import ChannelClosed, Question
from extproc.workers.process import Patience
from extproc.workers.slot import Slot
from extproc.workers.supervisor import Supervisor
from tests.grpc.test_workers import BASE, WITHIN_S, Eventually, Router, decide, is_running
from tests.grpc.test_workers import eventually as eventually  # noqa: PLC0414  (a fixture)

PATIENT = Patience(stuck_after_s=600)
SMALL = BASE + "pools: [{name: tiny, max_budget_tokens: 2}, {name: long, max_budget_tokens: 9000}]\n"
BAD = BASE + "learning: {source: access_log, access_log: {key_file: /nonexistent/key}}\n"


@contextmanager
def running(patience: Patience, config: str = BASE) -> Iterator[tuple[Supervisor, Router, threading.Thread]]:
    """Run a supervisor of two workers in this process; kill what is left at the end."""
    supervisor = Supervisor(parse(config), None, 2, patience)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor, Router(supervisor.admin_address, slots=supervisor.slots), thread
    finally:
        for slot in supervisor.slots:
            slot.kill()
        supervisor.end()
        thread.join()


def test_a_file_is_tried_by_a_worker_even_if_none_runs(
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """While all workers are down, workers are started with the new file: a bad one changes nothing, a good one is
    in force, and the workers that it started go on serving.
    """
    with running(Patience(first_wait_s=600, longest_wait_s=600)) as (supervisor, router, _):
        eventually(router.all_ready)
        with monkeypatch.context() as patched:
            patched.setattr(Slot, "_restart", lambda _: None)
            for pid in router.pids():
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: router.metric("dualpool_workers_replaced_total", cause="not_started") == 2)
        with pytest.raises(ConfigurationError, match="/nonexistent/key"):
            supervisor.apply(parse(BAD))
        assert "response" == router.get("/config").json()["learning"]["source"]
        supervisor.apply(parse(SMALL))
        assert "tiny" == router.get("/config").json()["pools"][0]["name"]
        eventually(router.all_ready)
        assert 2 == router.metric("dualpool_workers_serving")


def test_a_hung_worker_does_not_delay_a_change(call: type[Any], eventually: Eventually) -> None:
    """The other worker uses the new file at once; the hung one counts as not ready, and follows when it answers
    again.
    """
    with running(PATIENT) as (supervisor, router, _):
        eventually(router.all_ready)
        hung, other = router.workers()
        os.kill(hung["pid"], signal.SIGSTOP)
        supervisor.apply(parse(SMALL))
        decide(call, [other["address"]])
        eventually(lambda: not router.workers()[0]["ready"])
        os.kill(hung["pid"], signal.SIGCONT)
        eventually(router.all_ready)
        eventually(lambda: router.slots[0]._used is router.slots[1]._used)
        decide(call, [hung["address"]])
        eventually(lambda: router.metric("dualpool_requests_total", pool="long") == 2)


@pytest.mark.parametrize(
    ("answers", "raised", "taken"),
    [
        ((None, None), None, True),
        ((ChannelClosed(), None), None, True),
        ((TimeoutError(), None), None, True),
        ((ConfigurationError("bad"), TimeoutError()), ConfigurationError, False),
        ((ChannelClosed(), ConfigurationError("bad")), ConfigurationError, False),
        ((ChannelClosed(), ChannelClosed()), TimeoutError, False),
        ((ChannelClosed(), TimeoutError()), TimeoutError, False),
    ],
)
def test_the_workers_that_answer_decide(
    monkeypatch: pytest.MonkeyPatch,
    answers: tuple[Exception | None, ...],
    raised: type[Exception] | None,
    taken: bool,  # noqa: FBT001
) -> None:
    """A change is in force only if a worker has taken it; then all workers are made to follow what is in force.

    In force at once is also the log level of the supervisor itself.
    """
    settled = threading.Barrier(3)

    def apply(slot: Slot, _: object) -> None:
        if (answer := answers[slot.number]) is not None:
            raise answer

    def start(_: Slot) -> None:
        raise ConfigurationError("no process is needed")

    monkeypatch.setattr(Slot, "start", start)
    monkeypatch.setattr(Slot, "apply", apply)
    monkeypatch.setattr(Slot, "settle", lambda _: settled.wait(WITHIN_S))
    levels: list[str] = []
    monkeypatch.setattr("extproc.workers.supervisor.set_log_level", levels.append)
    before, after = parse(BASE), parse(SMALL + "log_level: debug\n")
    supervisor = Supervisor(before, None, 2)
    if raised is None:
        supervisor.apply(after)
    else:
        with pytest.raises(raised):
            supervisor.apply(after)
    settled.wait(WITHIN_S)
    supervisor.end()
    supervisor.run()
    assert (after if taken else before) is supervisor._configuration
    assert (["debug"] if taken else []) == levels


def test_a_change_that_cannot_reach_all_workers_is_in_force_in_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no thread for one of the workers, the other one is made to follow what is in force, too."""
    settled = threading.Event()

    def start(_: Slot) -> None:
        raise ConfigurationError("no process is needed")

    def first_only(action: Callable[[], None]) -> None:
        if threads:
            raise RuntimeError("can't start new thread")
        threads.append(threading.Thread(target=action))
        threads[0].start()

    threads: list[threading.Thread] = []
    monkeypatch.setattr(Slot, "start", start)
    monkeypatch.setattr(Slot, "apply", lambda *_: None)
    monkeypatch.setattr(Slot, "settle", lambda _: settled.set())
    supervisor = Supervisor(before := parse(BASE), None, 2)
    with monkeypatch.context() as scarce:
        scarce.setattr("extproc.workers.supervisor._in_background", first_only)
        with pytest.raises(RuntimeError, match="new thread"):
            supervisor.apply(parse(SMALL))
    assert before is supervisor._configuration
    assert settled.wait(WITHIN_S)
    threads[0].join(WITHIN_S)
    supervisor.end()
    supervisor.run()


def test_a_worker_that_disagrees_follows_or_is_replaced(eventually: Eventually) -> None:
    """A worker that took what another one had refused gets the configuration in force again; one that cannot use
    the configuration in force is replaced.
    """
    with running(PATIENT) as (supervisor, router, _):
        eventually(router.all_ready)
        first, second = router.slots
        first.apply(parse(SMALL))
        first.settle()
        assert first._used is second._used is supervisor._configuration
        pid = second.pid
        supervisor._configuration = parse(BAD)
        second.settle()
        supervisor._configuration = parse(SMALL)
        eventually(lambda: second.pid != pid and second.ready and second._used is supervisor._configuration)


def test_a_hung_worker_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> None:
    """A worker that does not answer the request to drain is killed when it counts as stuck."""
    monkeypatch.setattr("extproc.workers.supervisor.ENDS_WITHIN_S", 6_000.0)
    asked_for_s = []
    with running(Patience(asks_every_s=6_000, stuck_after_s=600)) as (supervisor, router, thread):
        eventually(router.all_ready)
        hung = router.slots[0]
        assert hung.pid is not None
        os.kill(hung.pid, signal.SIGSTOP)

        def ask(question: Question, content: bytes, *, within_s: float) -> bytes:
            """Let the time to answer pass at once."""
            assert (Question.END, b"") == (question, content)
            asked_for_s.append(within_s)
            raise TimeoutError

        monkeypatch.setattr(hung._channel, "ask", ask)
        supervisor.end()
        thread.join(10 * WITHIN_S)
        assert not thread.is_alive()
    assert [600] == asked_for_s


def test_a_worker_that_hangs_in_its_start_does_not_delay_the_end(
    monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """It is killed, and the worker that serves already drains: SIGTERM would otherwise be followed by SIGKILL."""
    hangs = f'[ "$3" = 1 ] && exec sleep 600; exec {sys.executable} "$0" "$@"'
    monkeypatch.setattr("extproc.workers.process._PYTHON", ["/bin/sh", "-c", hangs])
    with running(PATIENT, BASE.replace("drain_s: 0", "drain_s: 600")) as (supervisor, router, thread):
        eventually(lambda: router.workers()[0]["ready"])
        serving, hung = router.pids()
        supervisor.end()
        eventually(lambda: not is_running(hung) and not router.workers()[0]["ready"])
        assert (True, True) == (thread.is_alive(), is_running(serving))
        supervisor.end()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def test_workers_drain_when_threads_have_run_out(monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> None:
    """They are asked without a thread for each, and not killed with their streams; nor does that end the drain."""

    def no_thread(_: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    with running(PATIENT, BASE.replace("drain_s: 0", "drain_s: 600")) as (supervisor, router, thread):
        eventually(router.all_ready)
        pids = router.pids()
        monkeypatch.setattr("extproc.workers.supervisor._in_background", no_thread)
        supervisor.end()
        eventually(lambda: not any(worker["ready"] for worker in router.workers()))
        assert [True, True, True] == [thread.is_alive(), *map(is_running, pids)]
        supervisor.end()
        thread.join(WITHIN_S)
        assert not thread.is_alive()


def test_a_worker_that_hangs_while_it_drains_is_killed(eventually: Eventually) -> None:
    """It is not replaced, and the other worker goes on draining."""
    config = BASE.replace("drain_s: 0", "drain_s: 600")
    with running(Patience(asks_every_s=0.05, stuck_after_s=5), config) as (supervisor, router, thread):
        eventually(router.all_ready)
        hung, other = router.pids()
        supervisor.end()
        eventually(lambda: not any(worker["ready"] for worker in router.workers()))
        os.kill(hung, signal.SIGSTOP)
        eventually(lambda: not is_running(hung))
        assert (True, True) == (thread.is_alive(), is_running(other))
        assert 0 == router.metric("dualpool_workers_replaced_total")


def test_logs_say_why_a_worker_did_not_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """A successor that exits before it serves is logged with that reason."""
    with running(PATIENT) as (_, router, _thread):
        eventually(router.all_ready)
        monkeypatch.setattr("extproc.workers.process._PYTHON", ["/bin/false"])
        os.kill(router.pids()[0], signal.SIGKILL)
        eventually(lambda: "a worker did not start: its process has exited" in caplog.text)


def test_a_worker_that_drained_on_request_is_no_error(
    caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """SIGTERM to one worker is logged as information, a worker that was killed as an error."""
    with running(PATIENT) as (_, router, _thread), caplog.at_level(logging.INFO):
        for sent in (signal.SIGTERM, signal.SIGKILL):
            eventually(router.all_ready)
            pid = router.pids()[0]
            os.kill(pid, sent)
            eventually(lambda pid=pid: router.pids()[0] not in (pid, None))  # type: ignore[misc]
        replaced = [each.levelno for each in caplog.records if each.message == "a worker is replaced"]
        assert [logging.INFO, logging.ERROR] == replaced
