"""Construction of a router from a configuration, for server, command line and benchmarks; nothing else builds one.

After a change of configuration, a new router continues with what the old one has learned. It shares the estimator
if the estimator's settings are unchanged; otherwise it gets a new one that was given the old one's state. It also
takes over, where the settings involved are unchanged, the learning budget, the tokenizers with what was learned
about them, and what is known about models.
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

    Raises ConfigurationError for invalid pools, and for tokenizers that cannot be read.
    """
    estimator, budget = make_estimator(configuration.estimator), LearningBudget(configuration.learning)
    counting = _counting(configuration.estimator)
    return _router(configuration, listener, estimator, budget, _spillover(configuration), counting=counting)


def recompose(router: Router, was: Configuration, configuration: Configuration, learned: Estimator) -> Router:
    """Return a router with other settings that continues with `learned`, and with what else `router` knows.

    `was` is the configuration of `router`. `learned` is the old estimator itself if its settings are unchanged;
    the exchanges of both routers then teach it. Raises ConfigurationError for invalid pools, and for tokenizers
    that cannot be read.
    """
    same = was.learning == configuration.learning
    budget = router.learner.budget if same else LearningBudget(configuration.learning)
    spillover = _spillover(configuration, router.placer.spillover)
    same = was.estimator == configuration.estimator
    counting = router.placer.counting if same else _counting(configuration.estimator)
    after = _router(configuration, router.listener, learned, budget, spillover, counting=counting)
    after.learner.continue_from(router.learner)
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
    """Return the exact counting; None if no tokenizer is configured, so that its library is not loaded."""
    if not settings.exact:
        return None
    tokenizers = Tokenizers(settings.exact, settings.exact_budget_ms)
    return Counting(tokenizers, settings.byteclass.epsilon, settings.max_categories)


def _spillover(configuration: Configuration, before: Spillover | None = None) -> Spillover | None:
    if not configuration.spill.enabled:
        return None
    spill, salt = configuration.spill, _salt(configuration)
    return Spillover(spill, salt) if before is None else before.under(spill, salt)


def _salt(configuration: Configuration) -> bytes:
    """Return a value that clients do not know and that all processes with the same pools and spill settings share.

    Nothing else goes into it: with settings that differ between workers, or take effect in some replicas only
    after a restart, each process would move different conversations.
    """
    return fingerprint(Configuration(pools=configuration.pools, spill=configuration.spill))
