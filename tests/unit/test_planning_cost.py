"""What a search need not compute twice, and that leaving it out changes no result."""

import numpy as np

from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.policy import Pool, Pools
from extproc.core.text import digrams, text_kind
from extproc.planning.declared import DeclaredRule
from extproc.planning.lengths import Lengths
from extproc.planning.routers import LearningRouter
from extproc.planning.texts import draw_texts
from extproc.planning.workload import poisson_workload


def test_the_kind_of_text_is_the_estimators_own() -> None:
    """A request's category in the workload is what the estimator would see in its bytes."""
    texts = draw_texts(np.arange(1, 60), np.random.default_rng(0))
    kinds = [text_kind(digrams(texts.text(request))).value for request in range(59)]
    assert [texts.category(request) for request in range(59)] == kinds


def test_a_router_told_the_kind_of_text_learns_the_same_categories() -> None:
    """The categories in the loop are those of an estimator that looks at each text itself."""
    lengths = Lengths(np.array([50, 300, 900]), np.array([5, 9, 20]), "test")
    workload = poisson_workload(lengths, 10, 200, DeclaredRule.TRUTH, np.random.default_rng(0))
    estimator = EmaEstimator(EstimatorSettings())
    router = LearningRouter(workload, Pools([Pool("short", 512), Pool("long", 4096)]), estimator)
    for request in range(len(workload)):
        router.place(request)
        router.learn(request, int(workload.output[request]))
    learned = {row.category.key for row in estimator.state().categories}
    assert learned == {text_kind(digrams(workload.texts.text(r))).value for r in range(len(workload))}
