"""Everything that is in force, as one value: a configuration, its router, the message codecs, the deadlines.

A changed configuration makes a new value, which starts with what was learned; streams that have begun keep theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.compose import compose, recompose
from extproc.config.schema import Configuration
from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.protocol import Estimator, LearnedState
from extproc.core.listener import Listener
from extproc.core.router.learning_budget import LearningSource
from extproc.core.router.router import Router
from extproc.server.access_logs import Teaching, teaching_of
from extproc.server.deadlines import Deadlines
from extproc.server.log_key import new_key as random_key
from extproc.server.log_key import read_key
from extproc.server.loop import Loop
from extproc.wire.decode import Decoder
from extproc.wire.encode import Encoder

__all__ = ["TAKEN_WITHIN_S", "Routing", "Routings"]

# How long the loop may take to return what was learned, or to swap in a new routing.
TAKEN_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Routing:
    """How one configuration handles requests. It is swapped as a whole; a stream keeps the one it began with."""

    configuration: Configuration
    router: Router
    decoder: Decoder
    encoder: Encoder
    deadlines: Deadlines
    teaching: Teaching | None = None


class Routings:
    """Makes the routings of one process; `clock_ns` is for traces, None if there are none."""

    def __init__(self, clock_ns: Callable[[], int] | None) -> None:
        self._clock_ns = clock_ns
        self._spare_key = random_key()

    def first(self, configuration: Configuration, listener: Listener) -> Routing:
        """Return a routing that has learned nothing yet. Raises ConfigurationError for unusable settings."""
        return self._of(configuration, compose(configuration, listener))

    def after(self, before: Routing, configuration: Configuration, loop: Loop) -> Routing:
        """Return the routing of another configuration, which continues from the one in force.

        Called on a thread other than the loop's. Raises ConfigurationError for a configuration that cannot be
        used, TimeoutError if the loop does not return what was learned.
        """
        learned = _learned_under(configuration, before, loop)
        router = recompose(before.router, before.configuration, configuration, learned)
        return self._of(configuration, router, before)

    def knowing(self, before: Routing, learned: Estimator, *, new_key: bool = False) -> Routing:
        """Return a routing under the same configuration with another estimator, or with a `new_key` of the access
        log: then a key that cannot be used raises ConfigurationError.
        """
        router = recompose(before.router, before.configuration, before.configuration, learned)
        return self._of(before.configuration, router, before, new_key=new_key)

    def _of(
        self, configuration: Configuration, router: Router, before: Routing | None = None, *, new_key: bool = False
    ) -> Routing:
        after_s = configuration.exchange.deadline_ms / 1000
        deadlines = Deadlines(after_s)
        if before is not None and before.deadlines.after_s == after_s:
            deadlines = before.deadlines
        decoder = Decoder(configuration.tenant_header, self._clock_ns)
        former = None if before is None else before.teaching
        key = self._key(configuration, None if new_key else before)
        teaching = None if key is None else teaching_of(configuration, router, key, former)
        encoder = Encoder(configuration.headers, None if teaching is None else teaching.evidence)
        return Routing(configuration, router, decoder, encoder, deadlines, teaching)

    def _key(self, configuration: Configuration, before: Routing | None) -> bytes | None:
        """Return the access log's key; None if the log is not used.

        A file that has become unusable is no obstacle to other changes: its key stays in use. Raises
        ConfigurationError if there is no such key.
        """
        if configuration.learning.source is not LearningSource.ACCESS_LOG:
            return None
        file = configuration.learning.access_log.key_file
        try:
            return read_key(file) or self._spare_key
        except ConfigurationError:
            if before is None or before.teaching is None:
                raise
            if before.configuration.learning.access_log.key_file != file:
                raise
            return before.teaching.seal.keys.key


def _learned_under(configuration: Configuration, before: Routing, loop: Loop) -> Estimator:
    """Return the estimator, or one with the new settings that knows the same; one of another kind knows nothing.

    It misses the responses that arrive while it is made, which takes a few milliseconds.
    """
    estimator, settings = before.router.placer.estimator, configuration.estimator
    if settings == before.configuration.estimator:
        return estimator
    after = make_estimator(settings)
    if settings.kind == before.configuration.estimator.kind:
        after.load(LearnedState.joined(loop.ask_each(estimator.parts, TAKEN_WITHIN_S)))
    return after
