"""Putting a router together from its configuration, running it, and letting it go without losing a request."""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    disable_created_metrics,
)

from extproc import __version__
from extproc.compose import compose, recompose
from extproc.config.loading import as_json, fingerprint
from extproc.config.schema import Configuration, TraceSettings
from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import Estimator, LearnedState
from extproc.core.estimator.terms import Terms
from extproc.core.router.router import Router
from extproc.server.access_logs import STREAM_ACCESS_LOGS, AccessLogs, new_key, teaching_of
from extproc.server.admin import AdminPages
from extproc.server.admin_http import Admin, admin_servers
from extproc.server.background import Background, Job
from extproc.server.changes import Changes
from extproc.server.current import CurrentEstimator
from extproc.server.deadlines import Deadlines, Sweep
from extproc.server.freed_memory import FreedMemory
from extproc.server.grpc_core import UNIMPLEMENTED, Call, Core
from extproc.server.health import EXT_PROC_SERVICE, Health
from extproc.server.listening import listen, listen_for_probes
from extproc.server.live import Live, about_router
from extproc.server.loop import Loop, Timers
from extproc.server.own_knowledge import OwnKnowledge
from extproc.server.reload import Reloader
from extproc.server.streams import Routing, Streams
from extproc.server.tls import Certificates, check_pem
from extproc.server.watch import watch_job
from extproc.state.changing import Knowledge, in_store_of
from extproc.state.keeping import Keeping
from extproc.telemetry.fan_out import FanOut
from extproc.telemetry.log import LogListener, set_log_level
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent import Recent
from extproc.telemetry.reloads import ReloadMetrics
from extproc.telemetry.state_changes import StateChangeMetrics
from extproc.wire.decode import Decoder
from extproc.wire.encode import Encoder

if TYPE_CHECKING:
    from extproc.telemetry.traces import TraceListener

__all__ = ["App", "serve"]

PROCESS: Final = f"/{EXT_PROC_SERVICE}/Process"
# After the drain time only streams that would lose bytes are open still; they get this long to end by themselves.
LAST_STREAMS_S: Final = 10.0
JUDGES_EVERY_S: Final = 1.0
GIVES_BACK_EVERY_S: Final = 1.0
# How long the loop may take to hand out what was learned, or to take a new routing.
RELOADS_WITHIN_S: Final = 10.0

log = logging.getLogger("dualpool")


class App:
    """One router with its servers; `grpc_address` and `admin_address` are known once it is made.

    `run` serves in the thread that calls it; `end` and `reload` may be called from any other, and from a signal's
    handler. `file` is what the configuration was read from. Without `admin` there is no admin server. Raises
    ConfigurationError for what cannot be bound or read.
    """

    def __init__(self, configuration: Configuration, file: Path | None = None, *, admin: bool = True) -> None:
        self._serving = False
        self._asked_to_end = self._hurries = False
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, of no use
        self.registry = registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            registry.register(collector)
        metrics = Metrics(registry, configuration.metrics.max_models, configuration.metrics.max_categories)
        self._metrics = metrics
        self._traces = _traces(configuration.traces)
        listener = FanOut([metrics, LogListener(time.monotonic), *self._traces])
        self._clock_ns = time.time_ns if self._traces else None
        self._spare_key = new_key()
        self._streams = Streams(self._routing(configuration, compose(configuration, listener)), metrics)
        self._access_logs = AccessLogs(lambda: self._streams.routing.teaching, metrics, listener.failed)
        self._health = Health()
        self._core = Core()
        tls = configuration.listen.tls
        self._certificates = None if tls is None else Certificates(tls)
        self.grpc_address = listen(self._core, configuration.listen, self._certificates, self._on_call)
        self.health_address = listen_for_probes(self._core, configuration.listen, self._on_probe)
        self._say_what_runs()
        metrics.ready.set_function(lambda: float(self._health.ready))
        metrics.draining.set_function(lambda: float(self._asked_to_end))
        metrics.loop_lag.set_function(lambda: self._streams.overload.lag_s)
        self._judging = Sweep(JUDGES_EVERY_S, self._judge)
        self._freeing = Sweep(GIVES_BACK_EVERY_S, FreedMemory(lambda: bool(self._streams.open)).look)
        self._timers: list[Timers] = []
        self._set_timers()
        self.loop = Loop(self._core, self._timers, listener.failed)
        self._reloader = Reloader(file, configuration, self.apply, ReloadMetrics(registry))
        self._changing = threading.Lock()
        self.own_knowledge = OwnKnowledge(
            self.loop,
            self._changing,
            lambda: self._configuration.estimator,
            lambda: self.router.placer.estimator,
            self._go_on_from,
        )
        self._admins = self._admin_servers(metrics, listener) if admin else []
        self.admin_address = self._admins[0].address if admin else ""
        terms = Terms.of(configuration.estimator)
        estimator = CurrentEstimator(lambda: self.router.placer.estimator)
        self._keeping = Keeping(configuration.state, terms, estimator, self._ask, metrics)
        jobs: list[Job] = [*self._keeping.jobs, watch_job(lambda: self._streams.routing, metrics)]
        self._background = Background(jobs)

    def _admin_servers(self, metrics: Metrics, listener: FanOut) -> list[Admin]:
        """Make the servers of the admin port, with the live page and what can be changed."""
        pages = AdminPages(
            self.registry,
            self.loop,
            lambda: self._health.ready,
            lambda: self.router.placer.estimator.state(),  # noqa: PLW0108  (another one after a reload)
            lambda: as_json(self._configuration, reload=self._reloader.report()),
        )
        recent = Recent()
        live = Live(
            lambda: about_router(self._configuration),
            lambda wanted: [each.collect() for each in metrics.tallies if wanted(each.name, each.kind)],
            recent,
            lambda watched: self.loop.tell(lambda: (listener.add if watched else listener.remove)(recent)),
        )
        changes = Changes(self._knowledge, self.own_knowledge, StateChangeMetrics(self.registry))
        return admin_servers(self._configuration.admin, pages, live, changes)

    @property
    def _configuration(self) -> Configuration:
        return self._streams.routing.configuration

    @property
    def router(self) -> Router:
        """What is in force for requests that come."""
        return self._streams.routing.router

    @property
    def ready(self) -> bool:
        """Whether gateways are told to ask; to be asked on the loop."""
        return self._health.ready

    def run(self) -> None:
        """Serve until asked to end, drain, and return cleanly from every stream."""
        self._keeping.begin()
        self._core.start()
        for admin in self._admins:
            admin.start()
        self._background.start()
        self._reloader.start()
        self._serving = True
        self._health.set_ready(ready=True)
        addresses = {"grpc": self.grpc_address, "admin": self.admin_address}
        log.info("serving" if self._admins else "worker serving", extra={"fields": addresses})
        self.loop.run(lambda: self._asked_to_end)
        if not self._hurries:
            self._drain()
        self._stop()

    def end(self, *, at_once: bool = False) -> None:
        """Ask to end, after the drain time or at once; so does a second call."""
        self._hurries = at_once or self._asked_to_end
        self._asked_to_end = True

    def reload(self) -> None:
        """Ask to read the configuration file again, at once."""
        self._reloader.ask()

    def apply(self, configuration: Configuration) -> None:
        """Put another configuration in force, except for what is bound; streams that have begun keep theirs.

        Called on another thread than the loop's. Raises ConfigurationError for what cannot be used, TimeoutError
        when the loop does not take it; then nothing has changed.
        """
        with self._changing:
            before, routing = self._configuration, self._streams.routing
            learned = self._learned_under(configuration)
            router = recompose(routing.router, before, configuration, learned)
            after = self._routing(configuration, router, routing.deadlines)
            tls = configuration.listen.tls
            if tls is not None and tls != before.listen.tls:
                check_pem(tls)
            self.loop.ask(lambda: self._swap(after), RELOADS_WITHIN_S)
        if tls is not None and self._certificates is not None:
            self._certificates.use(tls)
        set_log_level(configuration.log_level)

    def _go_on_from(self, learned: Estimator) -> None:
        """Put another estimator in force, under the same configuration."""
        routing = self._streams.routing
        router = recompose(routing.router, routing.configuration, routing.configuration, learned)
        after = self._routing(routing.configuration, router, routing.deadlines)
        self.loop.ask(lambda: self._swap(after), RELOADS_WITHIN_S)

    def _knowledge(self) -> Knowledge:
        configuration = self._configuration
        return in_store_of(configuration.state, configuration.estimator) or self.own_knowledge

    def _routing(self, configuration: Configuration, router: Router, before: Deadlines | None = None) -> Routing:
        after_s = configuration.exchange.deadline_ms / 1000
        deadlines = before if before is not None and before.after_s == after_s else Deadlines(after_s)
        decoder = Decoder(configuration.tenant_header, self._clock_ns)
        teaching = teaching_of(configuration, router, self._spare_key)
        encoder = Encoder(configuration.headers, None if teaching is None else teaching.evidence)
        return Routing(configuration, router, decoder, encoder, deadlines, teaching)

    def _learned_under(self, configuration: Configuration) -> Estimator:
        """Return the estimator, or one with other settings that knows as much; of another kind it knows nothing.

        What responses teach while it is made is lost to it: those of some milliseconds.
        """
        estimator, settings = self.router.placer.estimator, configuration.estimator
        if settings == self._configuration.estimator:
            return estimator
        after = make_estimator(settings)
        if settings.kind == self._configuration.estimator.kind:
            parts = self.loop.ask(estimator.parts, RELOADS_WITHIN_S)
            after.load(LearnedState.joined([self.loop.ask(part, RELOADS_WITHIN_S) for part in parts]))
        else:
            log.warning("another kind of estimator cannot use what was learned, and begins anew")
        return after

    def _swap(self, routing: Routing) -> None:
        self._streams.routing = routing
        self._set_timers()
        self._say_what_runs()

    def _set_timers(self) -> None:
        """Have deadlines kept that are still to come, and those of the routing in force."""
        deadlines = self._streams.routing.deadlines
        old = [each for each in self._timers if isinstance(each, Deadlines) and each is not deadlines]
        idle_s = self._configuration.listen.idle_s
        idle = Sweep(idle_s / 4, lambda now_s: self._streams.close_idle(now_s - idle_s))
        self._timers[:] = [
            *(deadlines, idle, self._judging, self._freeing, self._access_logs),
            *(each for each in old if each.next_s < inf),
        ]

    def _say_what_runs(self) -> None:
        configuration = self._configuration
        digest = fingerprint(configuration).hex()[:12]
        self._metrics.about(__version__, configuration.mode, digest, configuration.pools)

    def _drain(self) -> None:
        """Tell all that we go, and serve on for the drain time."""
        self._serving = False
        log.info("draining", extra={"fields": {"drain_s": self._configuration.drain_s}})
        self._health.set_ready(ready=False)
        ends_s = time.monotonic() + self._configuration.drain_s
        self.loop.run(lambda: self._hurries or time.monotonic() >= ends_s)

    def _stop(self) -> None:
        self._reloader.stop()
        self._background.stop()
        self._core.stop_accepting()
        self._health.end()
        self._streams.drain()
        self._access_logs.drain()
        ends_s = time.monotonic() + LAST_STREAMS_S
        self.loop.run(lambda: self._core.done or time.monotonic() >= ends_s)
        self._core.close()
        self._keeping.end()
        for admin in self._admins:
            admin.stop()
        for traces in self._traces:
            traces.close()
        log.info("stopped")

    def _ask(self, function: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.wrap_future(self.loop.submit(function))

    def _judge(self, now_s: float) -> None:
        """Turn unready while most requests cannot be decided in time, and ready again when they can."""
        ready = not self._streams.overload.mostly_late(now_s)
        if self._serving and ready != self._health.ready:
            log.warning("most requests are decided in time again" if ready else "most requests come too late")
            self._health.set_ready(ready=ready)

    def _on_call(self, call: Call, method: str) -> None:
        if method == PROCESS:
            self._streams.serve(call)
        elif method == STREAM_ACCESS_LOGS:
            self._access_logs.serve(call)
        else:
            self._on_probe(call, method)

    def _on_probe(self, call: Call, method: str) -> None:
        if not self._health.serve(call, method):
            call.finish(code=UNIMPLEMENTED, details=b"no such method")


def _traces(settings: TraceSettings | None) -> Sequence["TraceListener"]:
    """Return what makes traces, if anything is to; without, nothing of OpenTelemetry is imported."""
    if settings is None:
        return ()
    try:
        from extproc.telemetry.traces import TraceListener  # noqa: PLC0415  (as said above)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"traces: {error.name} is missing; install dualpool[otel]") from error
    return (TraceListener.sending(settings.endpoint, settings.service_name, __version__),)


def serve(configuration: Configuration, file: Path | None) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the drain at once. SIGHUP reloads the file."""
    app = App(configuration, file)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.end())
    signal.signal(signal.SIGHUP, lambda *_: app.reload())
    app.run()
