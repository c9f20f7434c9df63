"""The admin pages of a router with several processes: the reports of its workers, merged."""

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from extproc.config.loading import as_json
from extproc.config.schema import Configuration
from extproc.core.estimator import make_estimator
from extproc.core.estimator.merging import merged as together
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.terms import Terms
from extproc.server.admin import PAGES, Cached, Page, text_page
from extproc.state.snapshot import to_json
from extproc.telemetry.families import Family, families_of, merged
from extproc.telemetry.workers import worker_streams
from extproc.workers.channel import ChannelClosed
from extproc.workers.slot import Slot

__all__ = ["WorkerPages"]

STREAMS: Final = "dualpool_streams_total"


class WorkerPages:
    """The admin pages by path; `own` holds the supervisor's metrics."""

    def __init__(
        self,
        slots: Sequence[Slot],
        own: CollectorRegistry,
        configuration: Callable[[], Configuration],
        reload: Callable[[], dict[str, object]],
    ) -> None:
        self._slots = slots
        self._own = own
        self._metrics = CollectorRegistry()
        self._metrics.register(_Merging(self))
        self._configuration = configuration
        self._reload = reload
        self._state_json = Cached(self._state, lambda: [slot.pid for slot in slots])
        self.state_changed = self._state_json.forget

    def metrics(self, *, now: bool) -> Iterator[Metric]:
        """Yield the metrics of all processes, merged as if they were one process.

        With `now`, each worker is asked; otherwise its last known metrics are used.
        """
        processes: dict[str, Sequence[Family]] = {"supervisor": families_of(self._own)}
        streams = worker_streams()
        for slot in self._slots:
            current, before = slot.families(now=now)
            processes[str(slot.number)], processes[f"before {slot.number}"] = current, before
            streams[str(slot.number),] = int(_sum_of(STREAMS, [*current, *before]))
        yield from merged(processes)
        yield streams.collect()

    def page(self, path: str) -> Page:
        """Return the status, content type and body of a path; thread-safe."""
        match path.partition("?")[0]:
            case "/metrics":
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._metrics)
            case "/healthz":
                return self._if(any(slot.started and slot.pid for slot in self._slots), "ok", "no worker runs")
            case "/readyz":
                return self._if(any(slot.ready for slot in self._slots), "ready", "not ready")
            case "/config":
                return HTTPStatus.OK, "application/json", self._config()
            case "/state":
                try:
                    return HTTPStatus.OK, "application/json", self._state_json()
                except TimeoutError as error:
                    return text_page(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
            case _:
                return text_page(HTTPStatus.NOT_FOUND, f"paths: {' '.join(PAGES)}\n")

    @staticmethod
    def _if(condition: object, then: str, otherwise: str) -> Page:
        return text_page(*((HTTPStatus.OK, then) if condition else (HTTPStatus.SERVICE_UNAVAILABLE, otherwise)))

    def _config(self) -> bytes:
        workers = [
            {
                "worker": slot.number,
                "pid": slot.pid,
                "address": slot.started and slot.started.address,
                "health_address": slot.started and slot.started.health_address,
                "ready": slot.ready,
            }
            for slot in self._slots
        ]
        return as_json(self._configuration(), reload=self._reload(), workers=workers)

    def _state(self) -> bytes:
        """Return the workers' merged state, which is empty while none runs.

        With a shared store, one worker's state is enough: each knows what all of them have learned. Raises
        TimeoutError if a worker does not answer: without it the state would look as if that were all.
        """
        configuration = self._configuration()
        states = self._states(any_of_them=configuration.state.store is not None)
        nothing = make_estimator(configuration.estimator).state()
        return to_json(together(states or [nothing], Terms.of(configuration.estimator))).encode()

    def _states(self, *, any_of_them: bool) -> list[LearnedState]:
        """Return the states of all workers that run, or of the first that answers."""
        states, silent = [], []
        for slot in self._slots:
            try:
                states.append(slot.state())
            except ChannelClosed:
                continue  # what it knew is lost
            except TimeoutError:
                silent.append(slot.number)
            if any_of_them and states:
                return states
        if silent:
            raise TimeoutError(f"worker {' and '.join(map(str, silent))} has not answered; try again")
        return states


class _Merging(Collector):
    """Adapts WorkerPages.metrics to a registry."""

    def __init__(self, pages: WorkerPages) -> None:
        self._pages = pages

    def collect(self) -> Iterator[Metric]:
        return self._pages.metrics(now=True)

    def describe(self) -> Iterator[Metric]:
        """Return nothing: the names are not known before the workers are asked."""
        return iter(())


def _sum_of(sample: str, families: Sequence[Family]) -> float:
    return sum(value for family in families for name, _, value in family.samples if name == sample)
