"""The router's process: built from its configuration, run, and stopped without losing a request."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from extproc import __version__
from extproc.config.loading import as_json, fingerprint
from extproc.config.schema import Configuration
from extproc.core.estimator.protocol import Estimator
from extproc.core.estimator.terms import Terms
from extproc.core.router.router import Router
from extproc.server.access_logs import AccessLogs
from extproc.server.admin import AdminPages
from extproc.server.admin_http import Admin, addresses_of, admin_servers
from extproc.server.background import Background
from extproc.server.changes import Changes
from extproc.server.deadlines import Sweep
from extproc.server.freed_memory import FreedMemory
from extproc.server.grpc_core import Core
from extproc.server.health import Health
from extproc.server.in_force import InForce
from extproc.server.listening import listen, listen_for_probes
from extproc.server.live import Live, about_router
from extproc.server.log_key import KeyFile
from extproc.server.loop import Loop, Timers
from extproc.server.methods import Methods
from extproc.server.own_knowledge import OwnKnowledge
from extproc.server.reload import Reloader
from extproc.server.routing import Routings
from extproc.server.streams import Streams
from extproc.server.tls import Certificates
from extproc.server.tracing import trace_listeners
from extproc.server.watch import watch_job
from extproc.state.changing import Knowledge
from extproc.state.keeping import Keeping, in_store_of
from extproc.telemetry.fan_out import FanOut
from extproc.telemetry.labels import FollowedFiles
from extproc.telemetry.log import LogListener
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.recent import Recent
from extproc.telemetry.registry import process_registry
from extproc.telemetry.reloads import ReloadMetrics
from extproc.telemetry.state_changes import StateChangeMetrics

__all__ = ["App"]

# After the drain time only streams that would lose bytes are still open: bodies in full duplex. They get this long
# to end by themselves, and are then cancelled, which the gateway answers with a 500.
LAST_STREAMS_S: Final = 10.0
# More than enough for connections without calls. Threads are waited for last: one may wait for a slow disk.
CANCELLED_WITHIN_S = 5.0
JUDGES_EVERY_S: Final = 1.0
FREES_EVERY_S: Final = 1.0

log = logging.getLogger("dualpool")


class App:
    """One router with its servers; `grpc_address` and `admin_address` are set by the constructor.

    `run` serves in the thread that calls it; `end` and `reload` may be called from any other thread and from
    signal handlers. `file` is the one that the configuration was read from. Without `admin` there is no admin
    server. Raises ConfigurationError for an address that cannot be bound or a file that cannot be read.
    """

    def __init__(self, configuration: Configuration, file: Path | None = None, *, admin: bool = True) -> None:
        self._serving = False
        self._ending = self._at_once = False
        self.registry = registry = process_registry()
        metrics = Metrics(registry, configuration.metrics.max_models, configuration.metrics.max_categories)
        self._traces = trace_listeners(configuration.traces)
        listener = FanOut([metrics, LogListener(time.monotonic), *self._traces])
        routings = Routings(time.time_ns if self._traces else None)
        self._streams = Streams(routings.first(configuration, listener), metrics)
        self._access_logs = AccessLogs(lambda: self._streams.routing.teaching, metrics)
        self._health = Health()
        methods = Methods(self._streams, self._access_logs, self._health)
        self._core = Core()
        tls = configuration.listen.tls
        certificates = None if tls is None else Certificates(tls, _followed(metrics, FollowedFiles.TLS))
        if certificates is not None:
            metrics.certificate_from.set_function(lambda: certificates.validity.from_s)
            metrics.certificate_until.set_function(lambda: certificates.validity.until_s)
        self.grpc_address = listen(self._core, configuration.listen, certificates, methods.on_call)
        self.health_address = listen_for_probes(self._core, configuration.listen, methods.on_probe)
        metrics.ready.set_function(lambda: float(self._health.ready))
        metrics.draining.set_function(lambda: float(self._ending))
        metrics.loop_lag.set_function(lambda: self._streams.overload.lag_s)
        judging = Sweep(JUDGES_EVERY_S, self._judge)
        freeing = Sweep(FREES_EVERY_S, FreedMemory(lambda: bool(self._streams.open)).look)
        timers: list[Timers] = [judging, freeing, self._access_logs]
        self.loop = Loop(self._core, timers, listener.failed)
        self._in_force = InForce(
            self.loop, timers, self._streams, routings, certificates=certificates, changed=self._changed
        )
        self._publish_info()
        self._reloader = Reloader(file, configuration, self.apply, ReloadMetrics(registry))
        self._admins = self._admin_servers(metrics, listener) if admin else []
        self.admin_address = self._admins[0].address if admin else ""
        terms = Terms.of(configuration.estimator)
        self._keeping = Keeping(configuration.state, terms, self._estimator, self.loop.awaited, metrics)
        watching = watch_job(lambda: self._streams.routing, metrics, self._posted(listener.failed))
        reported = _followed(metrics, FollowedFiles.LOG_KEY)
        key_file = KeyFile(self._in_force.log_key, self._in_force.renew_log_key, reported)
        jobs = [*self._keeping.jobs, watching, key_file.follow]
        if certificates is not None:
            jobs.append(certificates.follow)
        self._background = Background(jobs, self._posted(metrics.failed))

    def _posted(self, failed: Callable[[Exception], None]) -> Callable[[Exception], None]:
        """Return a function that reports an exception on the loop, from another thread."""
        return lambda error: self.loop.post(lambda: failed(error))

    def _admin_servers(self, metrics: Metrics, listener: FanOut) -> list[Admin]:
        """Make the servers of the admin port, with the live page and the changes to what was learned."""
        pages = AdminPages(
            self.registry,
            self.loop,
            lambda: self._health.ready,
            lambda: self._estimator().state(),
            lambda: as_json(self._in_force.configuration, reload=self._reloader.report()),
        )
        recent = Recent()
        live = Live(
            lambda: about_router(self._in_force.configuration),
            lambda wanted: [each.collect() for each in metrics.tallies if wanted(each.name, each.kind)],
            recent,
            lambda watched: self.loop.post(lambda: (listener.add if watched else listener.remove)(recent)),
        )
        changes = Changes(
            self._knowledge, self.own_knowledge, StateChangeMetrics(self.registry), pages.state_changed
        )
        return admin_servers(self._in_force.configuration.admin, pages, live, changes)

    @property
    def router(self) -> Router:
        """The router in force for new requests."""
        return self._in_force.router

    @property
    def own_knowledge(self) -> OwnKnowledge:
        """Changes to what this process has learned."""
        return self._in_force.own_knowledge

    @property
    def ready(self) -> bool:
        """Whether health reports SERVING; to be called on the loop."""
        return self._health.ready

    def run(self) -> None:
        """Serve until asked to end, then drain, return from every stream, and cancel those that cannot end."""
        self._keeping.begin()
        self._core.start()
        for admin in self._admins:
            admin.start()
        self._background.start()
        self._reloader.start()
        self._serving = True
        self._health.set_ready(ready=True)
        health = {"health": self.health_address} if self.health_address else {}
        addresses = {"grpc": self.grpc_address, **health, **addresses_of(self._admins)}
        log.info("serving" if self._admins else "worker serving", extra={"fields": addresses})
        self.loop.run(lambda: self._ending)
        if not self._at_once:
            self._drain()
        self._stop()

    def end(self, *, at_once: bool = False) -> None:
        """Ask to end, after the drain time or at once; a second call means at once."""
        self._at_once = at_once or self._ending
        self._ending = True

    def reload(self) -> None:
        """Ask to read the configuration file again, at once."""
        self._reloader.ask()

    def apply(self, configuration: Configuration) -> None:
        """Put another configuration in force: InForce.apply."""
        self._in_force.apply(configuration)

    def _changed(self) -> None:
        self._access_logs.resume()
        self._publish_info()

    def _publish_info(self) -> None:
        configuration = self._in_force.configuration
        digest = fingerprint(configuration).hex()[:12]
        epsilon = configuration.estimator.bound_epsilon
        self._streams.metrics.about(__version__, configuration.mode, digest, configuration.pools, epsilon)

    def _estimator(self) -> Estimator:
        """Return the estimator in force, which a reload may replace."""
        return self.router.placer.estimator

    def _knowledge(self) -> Knowledge:
        configuration = self._in_force.configuration
        return in_store_of(configuration.state, configuration.estimator) or self.own_knowledge

    def _drain(self) -> None:
        """Report NOT_SERVING, and go on serving for the drain time."""
        self._serving = False
        drain_s = self._in_force.configuration.drain_s
        self._streams.metrics.drains(drain_s + LAST_STREAMS_S)
        log.info("draining", extra={"fields": {"drain_s": drain_s}})
        self._health.set_ready(ready=False)
        self._serve_until(time.monotonic() + drain_s, lambda: self._at_once)

    def _stop(self) -> None:
        self._reloader.stop()
        self._background.stop()
        ends_s = time.monotonic() + LAST_STREAMS_S
        # Connections are closed only after their streams. gRPC closes one once the kernel has its last reply; what
        # the gateway sends to a closed socket resets it, and the kernel drops what the gateway has not read.
        # Without streams the gateway answers gRPC's GOAWAY first, and has then read everything before it.
        ending = self._streams.drain()
        self._serve_until(ends_s, lambda: ending.isdisjoint(self._streams.open))
        self._core.stop_accepting()
        self._health.end()
        self._access_logs.drain()
        self._serve_until(ends_s, lambda: self._core.done)
        self._core.cancel_calls()
        ends_s = time.monotonic() + CANCELLED_WITHIN_S
        self._serve_until(ends_s, lambda: self._core.done and self._reloader.stopped and self._background.stopped)
        self._core.close()
        self._keeping.end()
        for admin in self._admins:
            admin.stop()
        for traces in self._traces:
            traces.close()
        log.info("stopped")

    def _serve_until(self, ends_s: float, ended: Callable[[], bool]) -> None:
        self.loop.run(lambda: ended() or time.monotonic() >= ends_s)

    def _judge(self, now_s: float) -> None:
        """Turn unready while most requests cannot be decided in time, and ready again when they can."""
        ready = not self._streams.overload.mostly_late(now_s)
        if self._serving and ready != self._health.ready:
            log.warning(
                "most requests are decided in time again" if ready else "most requests cannot be decided in time"
            )
            self._health.set_ready(ready=ready)


def _followed(metrics: Metrics, setting: FollowedFiles) -> Callable[[bool], None]:
    """Return a function that shows whether a setting's files can be used."""
    return lambda unusable: metrics.file_followed(setting, unusable=unusable)
