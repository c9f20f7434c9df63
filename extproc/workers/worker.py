"""A worker: a router without an admin port. Its supervisor starts, polls and ends it through a socket pair.

A worker exits without draining when its supervisor exits, so that its address is free for a worker of the next
supervisor. If the worker is stuck at that time, no process is left to notice. So it sets an alarm: the kernel ends
it unless it answers ALIVE at least once a minute.
"""

import signal
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

import msgspec

from extproc.config.schema import Configuration
from extproc.core.estimator.protocol import LearnedState
from extproc.server.app import App
from extproc.state.snapshot import from_bytes, to_bytes
from extproc.telemetry.families import families_of
from extproc.telemetry.log import configure_logging
from extproc.telemetry.stray_lines import log_stray_lines
from extproc.workers.channel import Question, Started, answer_all

__all__ = ["main"]

LOOP_ANSWERS_WITHIN_S: Final = 2.0
STARTS_WITHIN_S: Final = 20.0
UNPOLLED_S: Final = 60
# Longer than the time given to streams that would lose bytes if they were closed.
ENDS_WITHIN_S: Final = 30


def main() -> int:
    """Serve until asked to exit or until the supervisor has exited; return the exit code."""
    connection, worker = Connection(int(sys.argv[1])), _Worker(int(sys.argv[2]))
    signal.alarm(UNPOLLED_S)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor handles it and passes the change on
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.end())
    threading.Thread(
        target=worker.answer_questions, args=(connection,), name="dualpool-worker", daemon=True
    ).start()
    return worker.run()


class _Worker:
    """The two threads of a worker: `run` serves the gateway, `answer_questions` answers the supervisor."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._apps: SimpleQueue[App | None] = SimpleQueue()
        self._app: App | None = None
        self._ending = False

    def run(self) -> int:
        """Wait for START, then serve; return the exit code."""
        app = self._apps.get()
        if app is None:
            return 2
        app.run()
        return 0

    def answer_questions(self, connection: Connection) -> None:
        """Answer the supervisor until it exits, then exit as well."""
        try:
            answer_all(connection, self._answer)
        finally:  # if threads have run out, too: a worker that answers nothing would be waited for
            signal.alarm(ENDS_WITHIN_S)
            self._apps.put(None)
            if self._app is not None:
                self._app.end(at_once=True)

    def end(self) -> None:
        """Drain, then exit. Later calls do nothing: a terminal or systemd signals the workers and the supervisor,
        and the supervisor then asks the workers, too.
        """
        if self._app is not None and not self._ending:
            self._ending = True
            self._app.end()

    def _answer(self, question: Question, content: bytes) -> bytes:
        if question is Question.START:
            return self._start(msgspec.json.decode(content, type=Configuration))
        app = self._app
        assert app is not None, "a worker is started before it is asked"
        match question:
            case Question.ALIVE:
                ready = app.loop.ask(lambda: app.ready, LOOP_ANSWERS_WITHIN_S)
                signal.alarm(UNPOLLED_S)
                return msgspec.msgpack.encode(ready)
            case Question.METRICS:
                return msgspec.msgpack.encode(families_of(app.registry))
            case Question.STATE:
                parts = app.loop.ask_each(app.router.placer.estimator.parts, LOOP_ANSWERS_WITHIN_S)
                return to_bytes(LearnedState.joined(parts))
            case Question.APPLY:
                app.apply(msgspec.json.decode(content, type=Configuration))
            case Question.ADD:
                return app.own_knowledge.add(from_bytes(content)).encode()
            case Question.FORGET | Question.UNDO:
                own = app.own_knowledge
                change = own.forget if question is Question.FORGET else own.undo
                return change(content.decode()).encode()
            case Question.END:
                self.end()
            case Question.HURRY:
                app.end(at_once=True)
        return b""

    def _start(self, configuration: Configuration) -> bytes:
        configure_logging(configuration.log_level, worker=self._number)
        log_stray_lines()
        self._app = app = App(configuration, admin=False)
        self._apps.put(app)
        app.loop.ask(lambda: None, STARTS_WITHIN_S)
        return msgspec.msgpack.encode(Started(app.grpc_address, app.health_address))
