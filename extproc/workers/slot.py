"""The slot of one worker: its process, which is replaced whenever it exits or hangs, and the worker's status.

A process that exits is replaced immediately. While processes exit soon after their start, the replacements after
the first are delayed, each twice as long as the one before, so that repeated failures do not exhaust the machine.
"""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.core.estimator.protocol import LearnedState
from extproc.state.snapshot import from_bytes
from extproc.telemetry.families import Family
from extproc.telemetry.workers import Replaced, WorkerMetrics
from extproc.workers.channel import Channel, ChannelClosed, Question, Started
from extproc.workers.process import Patience, settings_of, start_process
from extproc.workers.slot_metrics import SlotMetrics

__all__ = ["Slot"]

ANSWERS_WITHIN_S: Final = 2.5
STATE_WITHIN_S: Final = 10.0
APPLIES_WITHIN_S: Final = 25.0  # the worker asks its loop twice, for at most 10 s each

log = logging.getLogger("dualpool")


class Slot:
    """Worker `number` out of `workers`; `configuration` is called whenever a process is started."""

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
        self._changing = threading.Lock()  # held while a process is started, changed or retired
        self._used: Configuration | None = None  # the configuration of the running process
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._own_metrics = SlotMetrics(lambda: self._ask(Question.METRICS))
        self._keeper = threading.Thread(target=self._keep, name=f"dualpool-worker-{number}", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process's ID; None while no process runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Start the first process. Raises ConfigurationError, with the worker's reasons, if it does not start."""
        try:
            self._start(self._configuration())
        except (ChannelClosed, TimeoutError) as error:
            raise ConfigurationError(f"worker {self.number} did not start; its log may say why") from error

    def keep(self) -> None:
        """From now on, replace the process whenever it exits or is stuck."""
        self._keeper.start()

    def apply(self, configuration: Configuration) -> None:
        """Make the process use a configuration, or start one with it. Raises what Channel.ask raises."""
        with self._changing:
            if self._channel is None:
                self._start(configuration)
            else:
                self._use(configuration)

    def settle(self) -> None:
        """Make the process use the configuration in force if it uses another one; replace it if that fails."""
        with self._changing:
            configuration = self._configuration()
            if self._channel is None or self._used is configuration:
                return
            try:
                self._use(configuration)
            except (ConfigurationError, ChannelClosed, TimeoutError):
                self._kill_process()

    def state(self) -> LearnedState:
        """Return what the worker has learned. Raises what Channel.ask raises."""
        return from_bytes(self._ask(Question.STATE, within_s=STATE_WITHIN_S))

    def change(self, question: Question, content: bytes) -> str:
        """Make the worker ADD, FORGET or UNDO; return its answer. Raises what Channel.ask raises."""
        return self._ask(question, content, within_s=APPLIES_WITHIN_S).decode()

    def families(self, *, now: bool) -> tuple[Sequence[Family], Sequence[Family]]:
        """Return the metrics of the process (asked for if `now`, else the last known) and the sum of those of all
        processes before it.
        """
        if now:
            with suppress(ChannelClosed, TimeoutError):
                self._own_metrics.refresh()
        return self._own_metrics.families()

    def end(self, *, at_once: bool) -> None:
        """Ask the process to exit, after its drain or `at_once`; it is no longer replaced.

        A process that does not answer is killed: soon if it is to exit at once, otherwise when it counts as stuck.
        """
        self._ending.set()
        draining = Question.END, self._patience.stuck_after_s
        question, within_s = (Question.HURRY, ANSWERS_WITHIN_S) if at_once else draining
        try:
            self._ask(question, within_s=within_s)
        except ChannelClosed:
            pass
        except TimeoutError:
            self._kill_process()

    def wait(self, until_s: float) -> bool:
        """Wait for the process to exit, at most until `until_s` on time.monotonic(); return whether it has."""
        if self._process is not None:
            try:
                self._process.wait(max(until_s - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                return False
        return True

    def kill(self) -> None:
        """Kill the process, which is not replaced, and wait for it to exit."""
        self._ending.set()
        self._kill_and_wait()

    def _keep(self) -> None:
        """Watch the process and replace it. Called on the slot's own thread."""
        wait_s = 0.0
        while not self._ending.is_set():
            try:
                wait_s = self._keep_one(wait_s)
            except Exception as error:  # noqa: BLE001  (it would end this thread, and nothing else watches)
                self._failed("a worker could not be watched", error)
                self._ending.wait(self._patience.longest_wait_s)

    def _keep_one(self, wait_s: float) -> float:
        """Watch the process until it ends, and replace it after a wait; return the wait for the next one."""
        began_s = time.monotonic()
        cause = self._watch()
        if self._ending.is_set():
            return wait_s
        self._retire(cause)
        lasted_s = time.monotonic() - began_s
        wait_s = 0.0 if cause is not Replaced.NOT_STARTED and lasted_s >= self._patience.steady_after_s else wait_s
        self._ending.wait(wait_s)
        self._restart()
        return min(max(2 * wait_s, self._patience.first_wait_s), self._patience.longest_wait_s)

    def _restart(self) -> None:
        """Start another process, unless `apply` has; if that fails, the next `_watch` returns NOT_STARTED."""
        with self._changing:
            if self._channel is not None or self._ending.is_set():
                return
            try:
                self._start(self._configuration())
            except Exception as error:  # noqa: BLE001  (it is tried again)
                self._failed("a worker did not start", error)

    def _failed(self, what: str, error: Exception) -> None:
        why = str(error) or type(error).__name__
        log.error("%s: %s", what, why, extra={"fields": {"worker": self.number}})

    def _start(self, configuration: Configuration) -> None:
        if self._ending.is_set():
            raise ChannelClosed
        settings = settings_of(configuration, self.number, self._workers, self.started)
        self._kill_and_wait()  # of a process that did not start, which may still hold the address
        self._process, channel = start_process(self.number)
        try:
            answer = channel.ask(Question.START, settings, within_s=self._patience.start_s)
        except (ConfigurationError, ChannelClosed, TimeoutError):
            channel.close()
            raise
        self.started, self._channel = msgspec.msgpack.decode(answer, type=Started), channel
        self._used, self.ready = configuration, True
        if self._ending.is_set():  # it may have been set during the start
            self._kill_process()

    def _use(self, configuration: Configuration) -> None:
        settings = settings_of(configuration, self.number, self._workers, self.started)
        self._ask(Question.APPLY, settings, within_s=APPLIES_WITHIN_S)
        self._used = configuration

    def _watch(self) -> Replaced:
        """Poll the process, also while it drains, until it has exited or is stuck and killed; return which."""
        channel = self._channel
        if channel is None:
            return Replaced.NOT_STARTED
        answered_s = time.monotonic()
        while not channel.closed.wait(self._patience.asks_every_s):
            try:
                self.ready = msgspec.msgpack.decode(self._ask(Question.ALIVE), type=bool)
                self._own_metrics.refresh()
                answered_s = time.monotonic()
            except (ChannelClosed, TimeoutError):
                self.ready = False
                if time.monotonic() - answered_s >= self._patience.stuck_after_s:
                    self._kill_process()  # at once: a question that waits for an answer holds `_changing`
                    return Replaced.STUCK
        return Replaced.ENDED

    def _retire(self, cause: Replaced) -> None:
        """Make sure that the process has exited, and keep its counts."""
        with self._changing:
            self._metrics.replaced(self.number, cause)
            if cause is Replaced.NOT_STARTED and self._channel is not None:
                return  # `apply` has started another one since
            self.ready, self._channel = False, None
            code = self._kill_and_wait()
            self._own_metrics.retire()
        log.log(
            logging.ERROR if code else logging.INFO,  # 0: it was asked to drain, by SIGTERM
            "a worker is replaced",
            extra={"fields": {"worker": self.number, "cause": cause, "exit_code": code}},
        )

    def _kill_process(self) -> None:
        """Kill the process, which is then replaced unless the slot is ending."""
        if self._process is not None:
            self._process.kill()

    def _kill_and_wait(self) -> int | None:
        if self._process is None:
            return None
        self._process.kill()
        return self._process.wait()

    def _ask(self, question: Question, content: bytes = b"", *, within_s: float = ANSWERS_WITHIN_S) -> bytes:
        channel = self._channel
        if channel is None:
            raise ChannelClosed
        return channel.ask(question, content, within_s=within_s)
