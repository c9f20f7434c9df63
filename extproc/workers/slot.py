"""The place of one worker: its process, started again whenever it ends or hangs, and what is known of it.

A process that ends is followed by another one at once. One that ended soon after its start makes the next but one
wait, longer each time, so that a fault at every start does not use up the machine.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from extproc.config.schema import Configuration
from extproc.config.worker_addresses import of_worker
from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import LearnedState
from extproc.state.snapshot import from_bytes
from extproc.telemetry.families import Ended, Family
from extproc.telemetry.workers import Replaced, WorkerMetrics
from extproc.workers.channel import Channel, ChannelClosed, Question, Started
from extproc.workers.process import start_process

__all__ = ["Patience", "Slot"]

ANSWERS_WITHIN_S: Final = 2.5
STATE_WITHIN_S: Final = 10.0
APPLIES_WITHIN_S: Final = 25.0  # its loop is asked twice, each time for 10 s at most

log = logging.getLogger("dualpool")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what is waited for, in seconds."""

    start_s: float = 60.0
    asks_every_s: float = 1.0
    stuck_after_s: float = 10.0
    """Without an answer for so long a worker is taken for stuck."""
    steady_after_s: float = 10.0
    """What ends sooner after its start makes the next one wait."""
    first_wait_s: float = 0.1
    longest_wait_s: float = 5.0


class Slot:
    """Worker `number` of so many; `configuration` is asked for whenever a process is started."""

    def __init__(
        self,
        number: int,
        workers: int,
        configuration: Callable[[], Configuration],
        metrics: WorkerMetrics,
        patience: Patience,
    ) -> None:
        self.number = number
        self._workers = workers
        self.started: Started | None = None
        self.ready = False
        self._configuration = configuration
        self._metrics = metrics
        self._patience = patience
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._ended = Ended()
        self._families: tuple[int, Sequence[Family]] = (0, ())
        self._asked = 0
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name=f"dualpool-worker-{number}", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Start the first process. Raises ConfigurationError when it does not start, with what it says of that."""
        try:
            self._start()
        except (ChannelClosed, TimeoutError) as error:
            raise ConfigurationError(f"worker {self.number} did not start; its log may say why") from error

    def keep(self) -> None:
        """From now on replace the process when it ends or is stuck."""
        self._keeper.start()

    def apply(self, configuration: Configuration) -> None:
        """Put a configuration in force. Raises as Channel.ask."""
        self._ask(Question.APPLY, self._for_worker(configuration), within_s=APPLIES_WITHIN_S)

    def replace_process(self) -> None:
        """End the process without a warning; another one follows."""
        if self._process is not None:
            self._process.kill()

    def state(self) -> LearnedState:
        """Return what the worker knows. Raises as Channel.ask."""
        return from_bytes(self._ask(Question.STATE, within_s=STATE_WITHIN_S))

    def add(self, state: bytes) -> str:
        """Have the worker add a state to what it knows; return what it says of it. Raises as Channel.ask."""
        return self._ask(Question.ADD, state, within_s=APPLIES_WITHIN_S).decode()

    def forget(self, model: str) -> str:
        """Have the worker forget a model, or all. Raises as Channel.ask."""
        return self._ask(Question.FORGET, model.encode(), within_s=APPLIES_WITHIN_S).decode()

    def undo(self, model: str) -> str:
        """Have the worker put a model's former prices back. Raises as Channel.ask."""
        return self._ask(Question.UNDO, model.encode(), within_s=APPLIES_WITHIN_S).decode()

    def families(self, *, now: bool) -> tuple[Sequence[Family], Sequence[Family]]:
        """Return the metrics of the process, asked `now` or as last known, and those of all before it."""
        if now:
            with suppress(ChannelClosed, TimeoutError):
                self._refresh()
        with self._lock:
            return self._families[1], self._ended.families()

    def end(self, *, at_once: bool) -> None:
        """Ask the process to end, after its drain or without; it is not replaced any more.

        One that is to end at once and does not hear that is killed.
        """
        self._ending.set()
        try:
            self._ask(Question.HURRY if at_once else Question.END)
        except ChannelClosed:
            pass
        except TimeoutError:
            if at_once:
                self.replace_process()

    def wait(self, until_s: float) -> bool:
        """Wait until then, by time.monotonic(), for the process to end; return whether it has."""
        if self._process is not None:
            try:
                self._process.wait(max(until_s - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                return False
        return True

    def kill(self) -> None:
        """End the process without a warning."""
        self._ending.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _keep(self) -> None:
        """Called on a thread of its own: watch, and replace."""
        wait_s = 0.0
        while not self._ending.is_set():
            began_s = time.monotonic()
            cause = self._watch()
            if self._ending.is_set():
                return
            self._retire(cause)
            steady = (
                cause is not Replaced.NOT_STARTED and time.monotonic() - began_s >= self._patience.steady_after_s
            )
            wait_s = 0.0 if steady else wait_s
            self._ending.wait(wait_s)
            wait_s = min(max(2 * wait_s, self._patience.first_wait_s), self._patience.longest_wait_s)
            self._restart()

    def _restart(self) -> None:
        """Start another process; where that fails, the next look finds that there is none."""
        if self._ending.is_set():
            return
        try:
            self._start()
        except (ConfigurationError, ChannelClosed, TimeoutError) as error:
            log.error("a worker did not start: %s", error, extra={"fields": {"worker": self.number}})  # noqa: TRY400
        if self._ending.is_set():  # meanwhile
            self.replace_process()

    def _start(self) -> None:
        self._process, channel = start_process(self.number)
        configuration = self._configuration()
        try:
            said = channel.ask(Question.START, self._for_worker(configuration), within_s=self._patience.start_s)
        except (ConfigurationError, ChannelClosed, TimeoutError):
            channel.close()
            raise
        self.started, self._channel = msgspec.msgpack.decode(said, type=Started), channel
        if (now := self._configuration()) is not configuration:
            self.apply(now)
        self.ready = True

    def _watch(self) -> Replaced:
        """Ask again and again; return, when the process has ended or is stuck, what it was."""
        channel = self._channel
        if channel is None:
            return Replaced.NOT_STARTED
        answered_s = time.monotonic()
        while not channel.closed.wait(self._patience.asks_every_s):
            try:
                self.ready = msgspec.msgpack.decode(self._ask(Question.ALIVE), type=bool)
                self._refresh()
                answered_s = time.monotonic()
            except (ChannelClosed, TimeoutError):
                if time.monotonic() - answered_s >= self._patience.stuck_after_s:
                    return Replaced.STUCK
        return Replaced.ENDED

    def _retire(self, cause: Replaced) -> None:
        """See the process gone, and remember what it has counted."""
        self.ready, self._channel = False, None
        assert self._process is not None
        self._process.kill()
        code = self._process.wait()
        with self._lock:
            self._ended.add(self._families[1])
            self._families = (self._asked, ())
        self._metrics.replaced(self.number, cause)
        log.error(
            "a worker is replaced", extra={"fields": {"worker": self.number, "cause": cause, "exit_code": code}}
        )

    def _refresh(self) -> None:
        """Ask for the metrics; an answer to an older question never takes the place of one to a newer."""
        with self._lock:
            self._asked += 1
            asked = self._asked
        families = msgspec.msgpack.decode(self._ask(Question.METRICS), type=list[Family])
        with self._lock:
            if asked > self._families[0]:
                self._families = asked, families

    def _ask(self, question: Question, content: bytes = b"", *, within_s: float = ANSWERS_WITHIN_S) -> bytes:
        channel = self._channel
        if channel is None:
            raise ChannelClosed
        return channel.ask(question, content, within_s=within_s)

    def _for_worker(self, configuration: Configuration) -> bytes:
        own = of_worker(configuration, self.number, self._workers)
        if self.started is not None:  # on the ports that it had before, where any would have done
            address, health_address = self.started.address, self.started.health_address
            own = replace(own, listen=replace(own.listen, address=address, health_address=health_address))
        return msgspec.json.encode(own)
