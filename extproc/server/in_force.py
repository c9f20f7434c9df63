"""What is in force in a running router, and how other things are put in force.

The loop's thread reads it with each new stream. It is replaced on that thread, as a whole, between two events; who
wants to replace it waits on another thread. Streams that have begun keep what they began with.
"""

import logging
import threading
from collections.abc import Callable
from math import inf

from extproc.config.schema import Configuration
from extproc.core.estimator.protocol import Estimator
from extproc.core.router.router import Router
from extproc.server.deadlines import Deadlines, Sweep
from extproc.server.loop import Loop, Timers
from extproc.server.own_knowledge import OwnKnowledge
from extproc.server.routing import TAKEN_WITHIN_S, Routing, Routings
from extproc.server.streams import Streams
from extproc.server.tls import Certificates, check_pem
from extproc.telemetry.log import set_log_level

__all__ = ["InForce"]

log = logging.getLogger("dualpool")


class InForce:
    """The routing in force, which `streams` holds, and what has to follow when it is replaced.

    `timers` is the loop's list: those of the routing are added to it, and exchanged. `changed` is called on the
    loop after each change.
    """

    def __init__(
        self,
        loop: Loop,
        timers: list[Timers],
        streams: Streams,
        routings: Routings,
        *,
        certificates: Certificates | None,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._timers, self._always = timers, tuple(timers)
        self._streams = streams
        self._routings = routings
        self._certificates = certificates
        self._changed = changed
        self._changing = threading.Lock()
        self.own_knowledge = OwnKnowledge(
            loop,
            self._changing,
            lambda: self.configuration.estimator,
            lambda: self.router.placer.estimator,
            self._use_estimator,
        )
        self._set_timers()

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self._streams.routing.configuration

    @property
    def router(self) -> Router:
        """The router in force for new requests."""
        return self._streams.routing.router

    def apply(self, configuration: Configuration) -> None:
        """Put another configuration in force, except for bound addresses.

        Called on a thread other than the loop's. Raises ConfigurationError for a configuration that cannot be
        used, TimeoutError if the loop does not take it; nothing has changed then.
        """
        with self._changing:
            before, tls = self._streams.routing, configuration.listen.tls
            if tls is not None and tls != before.configuration.listen.tls:
                check_pem(tls)  # first, since it costs least: what cannot be used is tried again and again
            self._put_in_force(self._routings.after(before, configuration, self._loop))
        if configuration.estimator.kind != before.configuration.estimator.kind:
            log.warning("the new kind of estimator cannot use the learned state and starts empty")
        if tls is not None and self._certificates is not None:
            self._certificates.use(tls)
        set_log_level(configuration.log_level)

    def log_key(self) -> tuple[str, bytes] | None:
        """Return the name of the access log's key file, and the key in use; None if the log is not used."""
        routing = self._streams.routing
        file = routing.configuration.learning.access_log.key_file
        return None if routing.teaching is None else (file, routing.teaching.seal.keys.key)

    def renew_log_key(self) -> None:
        """Read the access log's key again, under the same configuration. Called on the threads that `apply` is."""
        with self._changing:
            now = self._streams.routing
            self._put_in_force(self._routings.knowing(now, now.router.placer.estimator, new_key=True))

    def _use_estimator(self, learned: Estimator) -> None:
        """Put an estimator in force, under the same configuration."""
        self._put_in_force(self._routings.knowing(self._streams.routing, learned))

    def _put_in_force(self, routing: Routing) -> None:
        self._loop.ask(lambda: self._swap(routing), TAKEN_WITHIN_S)

    def _swap(self, routing: Routing) -> None:
        self._streams.routing = routing
        self._set_timers()
        self._changed()

    def _set_timers(self) -> None:
        """Use the timers of the routing in force, and the old deadlines until none of them is pending."""
        deadlines = self._streams.routing.deadlines
        old = [each for each in self._timers if isinstance(each, Deadlines) and each is not deadlines]
        idle_s = self.configuration.listen.idle_s
        idle = Sweep(idle_s / 4, lambda now_s: self._streams.close_idle(now_s - idle_s))
        self._timers[:] = [deadlines, idle, *self._always, *(each for each in old if each.next_s < inf)]
