"""A router made from a configuration: the only place that does, for server, command line and benchmarks.

Under a changed configuration a new router goes on from what the old one has learned: it shares the estimator where
that one's settings are the same, else it has one that was given its state; so with the learning budget,
with tokenizers and what is learned of them, and with what is known of models.
"""

from extproc.config.loading import fingerprint
from extproc.config.schema import Configuration
from extproc.core.estimator import make_estimator
from extproc.core.estimator.counting import Counting
from extproc.core.estimator.protocol import Estimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.exchange.settings import CloseRule
from extproc.core.listener import Listener
from extproc.core.placing.policy import Pools
from extproc.core.placing.spill import Spillover
from extproc.core.router.learner import Learner
from extproc.core.router.learning_budget import LearningBudget, LearningSource
from extproc.core.router.placer import Placer
from extproc.core.router.router import Router
from extproc.exact.tokenizers import Tokenizers

__all__ = ["compose", "recompose"]


def compose(configuration: Configuration, listener: Listener) -> Router:
    """Return a router that has learned nothing yet.

    Raises ConfigurationError for pools that cannot be, and for tokenizers that cannot be read.
    """
    estimator, budget = make_estimator(configuration.estimator), LearningBudget(configuration.learning)
    counting = _counting(configuration.estimator)
    return _router(configuration, listener, estimator, budget, _spillover(configuration), counting=counting)


def recompose(router: Router, was: Configuration, configuration: Configuration, learned: Estimator) -> Router:
    """Return a router under other settings that goes on from `learned`, and from what else `router` knows.

    `was` is what `router` was made from. The estimator is shared where nothing about it changes: exchanges of both
    routers teach it. Raises ConfigurationError for pools that cannot be, and for tokenizers that cannot be read.
    """
    same = was.learning == configuration.learning
    budget = router.learner.budget if same else LearningBudget(configuration.learning)
    spillover = router.placer.spillover
    if was.spill != configuration.spill:
        spillover = _spillover(configuration)
    elif spillover is not None:
        spillover = spillover.under(_salt(configuration))
    same = was.estimator == configuration.estimator
    counting = router.placer.counting if same else _counting(configuration.estimator)
    after = _router(configuration, router.listener, learned, budget, spillover, counting=counting)
    after.learner.go_on_from(router.learner)
    if router.fleet is not None:
        after.know(router.fleet if was.pools == configuration.pools else router.fleet.under(configuration.pools))
    return after


def _router(
    configuration: Configuration,
    listener: Listener,
    estimator: Estimator,
    budget: LearningBudget,
    spillover: Spillover | None,
    *,
    counting: Counting | None,
) -> Router:
    pools = Pools(configuration.pools, stored_by_default=configuration.responses_stored_by_default)
    exchange, learning = configuration.exchange, configuration.learning
    placer = Placer(configuration.mode, pools, estimator, exchange.max_held_bytes, spillover, counting=counting)
    learner = Learner(
        pools,
        estimator,
        budget,
        listener,
        exchange.max_response_bytes,
        usage_in_streams=learning.usage_in_streams,
        reads_responses=learning.source is LearningSource.RESPONSE,
        counting=counting,
    )
    closes = exchange.close is CloseRule.WHEN_HARMLESS
    return Router(configuration.mode, placer, learner, listener, closes_streams=closes)


def _counting(settings: EstimatorSettings) -> Counting | None:
    """Return what counts exactly; None where no tokenizer is configured, and then its library is not loaded."""
    if not settings.exact:
        return None
    tokenizers = Tokenizers(settings.exact, settings.exact_budget_ms)
    return Counting(tokenizers, settings.byteclass.epsilon, settings.max_categories)


def _spillover(configuration: Configuration) -> Spillover | None:
    return Spillover(configuration.spill, _salt(configuration)) if configuration.spill.enabled else None


def _salt(configuration: Configuration) -> bytes:
    """Return what clients do not know and all processes have in common that move requests between the same pools.

    Nothing else goes into it: what differs between workers of one router, or waits for a restart in some replicas,
    would have each move conversations of its own.
    """
    return fingerprint(Configuration(pools=configuration.pools, spill=configuration.spill))
