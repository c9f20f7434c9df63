"""Putting a router together from its configuration, running it, and letting it go without losing a request."""

import asyncio
import hashlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    disable_created_metrics,
)

from extproc import __version__
from extproc.compose import compose
from extproc.config.loading import as_json
from extproc.config.schema import Configuration, TraceSettings
from extproc.core.errors import ConfigurationError
from extproc.core.estimator.tables import Terms
from extproc.server.admin import PROBES, AdminPages
from extproc.server.admin_http import Admin
from extproc.server.background import Background, Job
from extproc.server.deadlines import Sweep
from extproc.server.grpc_core import UNIMPLEMENTED, Call, Core
from extproc.server.health import EXT_PROC_SERVICE, Health
from extproc.server.listening import listen, listen_for_probes
from extproc.server.live import About, Live
from extproc.server.loop import Loop
from extproc.server.streams import Streams
from extproc.state.keeping import Keeping
from extproc.telemetry.fan_out import FanOut
from extproc.telemetry.log import LogListener
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent import Recent
from extproc.wire.decode import Decoder
from extproc.wire.encode import Encoder

if TYPE_CHECKING:
    from extproc.telemetry.traces import TraceListener

__all__ = ["App", "serve"]

PROCESS: Final = f"/{EXT_PROC_SERVICE}/Process"
# After the drain time only streams that would lose bytes are open still; they get this long to end by themselves.
LAST_STREAMS_S: Final = 10.0
JUDGES_EVERY_S: Final = 1.0

log = logging.getLogger("dualpool")


class App:
    """One router with its servers; `grpc_address` and `admin_address` are known once it is made.

    `run` serves in the thread that calls it; `end` may be called from any other, and from a signal's handler.
    Raises ConfigurationError for what cannot be bound or read.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._drain_s = configuration.drain_s
        self._serving = False
        self._asked_to_end = self._hurries = False
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, of no use
        registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            registry.register(collector)
        metrics = Metrics(registry, configuration.metrics.max_models, configuration.metrics.max_categories)
        self._traces = _traces(configuration.traces)
        listener = FanOut([metrics, LogListener(time.monotonic), *self._traces])
        self.router = compose(configuration, listener)
        clock_ns = time.time_ns if self._traces else None
        decoder, encoder = Decoder(configuration.tenant_header, clock_ns), Encoder(configuration.headers)
        self._streams = Streams(self.router, decoder, encoder, metrics, configuration.exchange.deadline_ms)
        self._health = Health()
        self._core = Core()
        self.grpc_address = listen(self._core, configuration.listen, self._on_call)
        self.health_address = listen_for_probes(self._core, configuration.listen, self._on_probe)
        idle_s = configuration.listen.idle_s
        config_json = as_json(configuration)
        digest = hashlib.sha256(config_json).hexdigest()[:12]
        metrics.about(__version__, configuration.mode, digest, [pool.name for pool in configuration.pools])
        metrics.ready.set_function(lambda: float(self._health.ready))
        metrics.draining.set_function(lambda: float(self._asked_to_end))
        metrics.loop_lag.set_function(lambda: self._streams.overload.lag_s)
        idle = Sweep(idle_s / 4, lambda now_s: self._streams.close_idle(now_s - idle_s))
        judge = Sweep(JUDGES_EVERY_S, self._judge)
        self.loop = Loop(self._core, [self._streams.deadlines, idle, judge], listener.failed)
        pages = AdminPages(
            registry,
            self.loop,
            lambda: self._health.ready,
            self.router.placer.estimator.state,
            config_json,
        )
        about = About(
            __version__, configuration.mode.value, configuration.pools, configuration.estimator.byteclass.epsilon
        )
        recent = Recent()
        live = Live(
            lambda: about,
            metrics.collect,
            recent,
            lambda watched: self.loop.tell(lambda: (listener.add if watched else listener.remove)(recent)),
        )
        self._admins = [Admin("admin.address", configuration.admin.address, pages, live=live)]
        self.admin_address = self._admins[0].address
        if probes := configuration.admin.probes_address:
            self._admins.append(Admin("admin.probes_address", probes, pages, PROBES))
        terms, estimator = Terms.of(configuration.estimator), self.router.placer.estimator
        self._keeping = Keeping(configuration.state, terms, estimator, self._ask, metrics)
        jobs: list[Job] = [*self._keeping.jobs]
        if any(pool.endpoints for pool in configuration.pools):
            from extproc.server.watch import watch_job  # noqa: PLC0415  (an HTTP client that others do not need)

            jobs.append(watch_job(configuration, self.router, metrics))
        self._background = Background(jobs)

    def run(self) -> None:
        """Serve until asked to end, drain, and return cleanly from every stream."""
        self._keeping.begin()
        self._core.start()
        for admin in self._admins:
            admin.start()
        self._background.start()
        self._serving = True
        self._health.set_ready(ready=True)
        log.info("serving", extra={"fields": {"grpc": self.grpc_address, "admin": self.admin_address}})
        self.loop.run(lambda: self._asked_to_end)
        if not self._hurries:
            self._drain()
        self._stop()

    def end(self, *, at_once: bool = False) -> None:
        """Ask to end, after the drain time or at once; so does a second call."""
        self._hurries = at_once or self._asked_to_end
        self._asked_to_end = True

    def _drain(self) -> None:
        """Tell all that we go, and serve on for the drain time."""
        self._serving = False
        log.info("draining", extra={"fields": {"drain_s": self._drain_s}})
        self._health.set_ready(ready=False)
        ends_s = time.monotonic() + self._drain_s
        self.loop.run(lambda: self._hurries or time.monotonic() >= ends_s)

    def _stop(self) -> None:
        self._background.stop()
        self._core.stop_accepting()
        self._health.end()
        self._streams.drain()
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


def serve(configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the drain at once."""
    app = App(configuration)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: app.end())
    app.run()
