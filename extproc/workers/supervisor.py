"""The process that starts the workers, keeps them alive, and serves one admin port for all of them.

No request passes through it: gateways connect to the workers, each of which is a separate endpoint. Only the
supervisor watches the configuration file; it passes each change to the workers, so that all have the same one.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from extproc.config.schema import Configuration
from extproc.config.worker_addresses import check_room
from extproc.core.errors import ConfigurationError
from extproc.server.admin_http import addresses_of, admin_servers
from extproc.server.changes import Changes
from extproc.server.live import Live, about_router
from extproc.server.reload import Reloader
from extproc.state.changing import Knowledge
from extproc.state.keeping import in_store_of
from extproc.telemetry.log import set_log_level
from extproc.telemetry.registry import process_registry
from extproc.telemetry.reloads import ReloadMetrics
from extproc.telemetry.state_changes import StateChangeMetrics
from extproc.telemetry.workers import WorkerMetrics
from extproc.workers.knowledge import WorkersKnowledge
from extproc.workers.pages import WorkerPages
from extproc.workers.process import Patience
from extproc.workers.slot import Slot

__all__ = ["Supervisor"]

# A draining worker gets this long beyond `drain_s` to end its last streams, connections and threads: less than the
# 25 s after which Kubernetes kills the pod.
ENDS_WITHIN_S: Final = 20.0
CHECKS_WORKERS_EVERY_S: Final = 0.2
CHECKS_SIGNALS_EVERY_S: Final = 0.5

log = logging.getLogger("dualpool")


class Supervisor:
    """The workers and their admin servers; `run` returns after `end`.

    Raises ConfigurationError if an address cannot be bound.
    """

    def __init__(
        self, configuration: Configuration, file: Path | None, workers: int, patience: Patience | None = None
    ) -> None:
        check_room(configuration, workers)
        self._configuration = configuration
        own = process_registry()
        metrics = WorkerMetrics(own, workers)
        self.slots = [
            Slot(number, workers, lambda: self._configuration, metrics, patience or Patience())
            for number in range(workers)
        ]
        metrics.serving.set_function(lambda: sum(slot.ready for slot in self.slots))
        self._reloader = Reloader(file, configuration, self.apply, ReloadMetrics(own))
        pages = WorkerPages(self.slots, own, lambda: self._configuration, self._reloader.report)
        # Runs on the loop that serves the pages, which must not wait for a worker: hence now=False.
        live = Live(
            lambda: about_router(self._configuration),
            lambda wanted: [each for each in pages.metrics(now=False) if wanted(each.name, each.type)],
            None,
            lambda _watched: None,
        )
        undoing, counting = WorkersKnowledge(self.slots), StateChangeMetrics(own)
        changes = Changes(self._knowledge, undoing, counting, pages.state_changed)
        self._admins = admin_servers(configuration.admin, pages, live, changes)
        self.admin_address = self._admins[0].address
        self._orders: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Start the workers, keep them running, and end them. Raises ConfigurationError if one cannot start."""
        try:
            for admin in self._admins:
                admin.start()
            if self._start_all():
                self._serve()
        finally:
            for slot in self.slots:
                slot.kill()
            for admin in self._admins:
                admin.stop()
        log.info("stopped")

    def end(self) -> None:
        """Ask to exit after the drain time; a second call cuts the drain short. Safe in a signal handler."""
        self._orders.put(None)

    def reload(self) -> None:
        """Ask for the configuration file to be read again immediately."""
        self._reloader.ask()

    def apply(self, configuration: Configuration) -> None:
        """Put a configuration into force in all workers, which try it at the same time.

        The first one that takes it or refuses it decides for all. A refusal's ConfigurationError is raised, and
        TimeoutError if no worker did either; the previous configuration is then still in force. No worker that
        hangs delays this.
        """
        answers: SimpleQueue[Exception | None] = SimpleQueue()
        decided = threading.Event()
        try:
            for slot in self.slots:
                _in_background(partial(_try, slot, configuration, answers.put, decided))
            for _ in self.slots:
                answer = answers.get()
                if isinstance(answer, ConfigurationError):
                    raise answer
                if answer is None:
                    self._configuration = configuration
                    set_log_level(configuration.log_level)
                    return
            raise TimeoutError("no worker has taken the configuration or refused it")
        finally:
            decided.set()

    def _knowledge(self) -> Knowledge:
        configuration = self._configuration
        return in_store_of(configuration.state, configuration.estimator) or WorkersKnowledge(self.slots)

    def _start_all(self) -> bool:
        """Start the workers; return False if `end` was called meanwhile, after those that served have drained.

        A terminal or systemd signals the workers, too, which exit at once while they still load their code.
        """
        ended = False
        with ThreadPoolExecutor(len(self.slots)) as threads:
            starts = {threads.submit(slot.start): slot for slot in self.slots}
            while under_way := wait(starts, CHECKS_SIGNALS_EVERY_S).not_done:
                ended = ended or self._end_requested(within_s=0)
                for start in under_way if ended else ():
                    starts[start].kill()
        try:
            for start in starts if not ended else ():
                start.result()
        except ConfigurationError:
            ended = self._end_requested(within_s=CHECKS_SIGNALS_EVERY_S)
            if not ended:
                raise
        for start, slot in starts.items():
            if start.exception() is None:
                slot.keep()
        if ended:
            self._drain()
        return not ended

    def _serve(self) -> None:
        self._reloader.start()
        started = [slot.started for slot in self.slots if slot.started]
        health = [each.health_address for each in started if each.health_address]
        addresses = {"grpc": [each.address for each in started], **({"health": health} if health else {})}
        log.info("serving", extra={"fields": addresses | addresses_of(self._admins)})
        while not self._end_requested(within_s=CHECKS_SIGNALS_EVERY_S):
            pass
        self._reloader.stop()
        self._drain()

    def _drain(self) -> None:
        log.info("draining", extra={"fields": {"drain_s": self._configuration.drain_s}})
        self._end_all(at_once=False, within_s=self._configuration.drain_s + ENDS_WITHIN_S)

    def _end_all(self, *, at_once: bool, within_s: float) -> None:
        """End all workers; skip the rest of the drain when `end` is called again."""
        ends_s = time.monotonic() + within_s
        for slot in self.slots:
            end = partial(slot.end, at_once=at_once)
            try:
                _in_background(end)
            except RuntimeError:  # no thread is left: the workers drain all the same, asked one after the other
                end()
        while time.monotonic() < ends_s and not all(slot.wait(0) for slot in self.slots):
            if self._end_requested(within_s=CHECKS_WORKERS_EVERY_S) and not at_once:
                self._end_all(at_once=True, within_s=ENDS_WITHIN_S)
                return

    def _end_requested(self, *, within_s: float) -> bool:
        """Wait for a call of `end`, and return whether there was one.

        The wait is short because a signal that the kernel delivers to another thread does not interrupt it.
        """
        try:
            self._orders.get(timeout=within_s)
        except Empty:
            return False
        return True


def _try(
    slot: Slot,
    configuration: Configuration,
    answer: Callable[[Exception | None], None],
    decided: threading.Event,
) -> None:
    """Try a configuration in a worker and answer how that went; after the decision, make the worker follow it."""
    try:
        slot.apply(configuration)
    except Exception as error:  # noqa: BLE001  (whatever it is, the decision must not wait for this worker)
        answer(error)
    else:
        answer(None)
    decided.wait()
    slot.settle()


def _in_background(action: Callable[[], None]) -> None:
    threading.Thread(target=action, name="dualpool-worker-change", daemon=True).start()
