"""Putting a router together from its configuration, running it, and letting it go without losing a request."""

import asyncio
import logging
import signal
import time

import grpc
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

from extproc.compose import compose
from extproc.config.loading import as_json
from extproc.config.schema import Configuration
from extproc.server.admin import Admin, AdminPages
from extproc.server.listening import Health, listen
from extproc.server.streams import Streams
from extproc.telemetry.fan_out import FanOut
from extproc.telemetry.log import LogListener
from extproc.telemetry.metrics import Metrics
from extproc.wire.decode import Decoder
from extproc.wire.encode import Encoder

__all__ = ["App", "serve"]

# After the drain time only streams that would lose bytes are open still; they get this long to end by themselves.
LAST_STREAMS_S = 10.0

log = logging.getLogger("dualpool")


class App:
    """One router with its servers; `grpc_address` and `admin_address` are known once it is made.

    Has to be made on a running event loop. Raises ConfigurationError for what cannot be bound or read.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._drain_s = configuration.drain_s
        self._stopped = False
        registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            registry.register(collector)
        metrics = Metrics(registry, configuration.metrics.max_models, configuration.metrics.max_categories)
        self.router = compose(configuration, FanOut([metrics, LogListener(time.monotonic)]))
        decoder, encoder = Decoder(configuration.tenant_header), Encoder(configuration.headers)
        self._streams = Streams(self.router, decoder, encoder, metrics, configuration.exchange.deadline_ms)
        self._health = Health()
        self._server: grpc.aio.Server
        self._server, self.grpc_address = listen(configuration.listen, self._streams, self._health)
        pages = AdminPages(
            registry, lambda: self._health.ready, self.router.placer.estimator.state, as_json(configuration)
        )
        self._admin = Admin(configuration.admin.address, pages)
        self.admin_address = self._admin.address

    async def start(self) -> None:
        """Begin to serve, then say so."""
        await self._server.start()
        self._admin.start()
        await self._health.set_ready(ready=True)
        log.info("serving", extra={"fields": {"grpc": self.grpc_address, "admin": self.admin_address}})

    async def drain(self, hurry: asyncio.Event) -> None:
        """Tell all that we go, serve on for the drain time (or until `hurry`), then return from every stream."""
        log.info("draining", extra={"fields": {"drain_s": self._drain_s}})
        await self._health.set_ready(ready=False)
        try:
            async with asyncio.timeout(self._drain_s):
                await hurry.wait()
        except TimeoutError:
            pass
        await self.stop()

    async def stop(self) -> None:
        """Return cleanly from every stream and close; a second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        stopping = asyncio.ensure_future(self._server.stop(LAST_STREAMS_S))
        self._streams.drain()
        await stopping
        await asyncio.to_thread(self._admin.stop)
        log.info("stopped")


async def serve(configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT, then drain; a second signal ends the drain at once."""
    app = App(configuration)
    asked, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    await app.start()
    await asked.wait()
    await app.drain(hurry)
