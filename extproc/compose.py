"""A router made from a configuration: the only place that does, for server, command line and benchmarks."""

from hashlib import sha256

from extproc.config.loading import as_json
from extproc.config.schema import Configuration
from extproc.core.estimator import make_estimator
from extproc.core.exchange.settings import CloseRule
from extproc.core.listener import Listener
from extproc.core.placing.policy import Pools
from extproc.core.placing.spill import Spillover
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget
from extproc.core.router.placer import Placer
from extproc.core.router.router import Router

__all__ = ["compose"]


def compose(configuration: Configuration, listener: Listener) -> Router:
    """Return a router that has learned nothing yet. Raises ConfigurationError for pools that cannot be."""
    pools = Pools(configuration.pools, stored_by_default=configuration.responses_stored_by_default)
    exchange, learning = configuration.exchange, configuration.learning
    estimator = make_estimator(configuration.estimator)
    spillover = Spillover(configuration.spill, _salt(configuration)) if configuration.spill.enabled else None
    placer = Placer(configuration.mode, pools, estimator, exchange.max_held_bytes, spillover)
    learner = Learner(
        pools,
        estimator,
        LearningBudget(learning),
        listener,
        exchange.max_response_bytes,
        usage_in_streams=learning.usage_in_streams,
    )
    closes = exchange.close is CloseRule.WHEN_HARMLESS
    return Router(configuration.mode, placer, learner, listener, closes_streams=closes)


def _salt(configuration: Configuration) -> bytes:
    """Return what clients do not know and all processes of one configuration have in common."""
    return sha256(as_json(configuration)).digest()
