"""The shortcuts of a search, none of which changes its result, and the costs of a fleet."""

import numpy as np
import pytest

from extproc.core.estimator.ema import EmaEstimator
from extproc.core.estimator.kinds import tenant_key
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.text import look, text_kind
from extproc.core.placing.policy import Pool, Pools
from extproc.planning.hardware.catalogue import built_in
from extproc.planning.hardware.instance import Instance
from extproc.planning.model.costs import costs_of
from extproc.planning.model.objective import Objective
from extproc.planning.model.setup import Setup
from extproc.planning.simulation import runner, search
from extproc.planning.simulation.cache import ResultCache
from extproc.planning.simulation.routers import LearningRouter
from extproc.planning.simulation.runner import FleetEstimate
from extproc.planning.simulation.search import FoundFleet, smallest_fleets
from extproc.planning.simulation.task import Design, SearchTask, run_fleet
from extproc.planning.workload.arrivals import poisson_workload
from extproc.planning.workload.declared import DeclaredRule
from extproc.planning.workload.lengths import Lengths
from extproc.planning.workload.texts import draw_texts


def test_the_kind_of_text_is_the_estimators_own() -> None:
    """A request's category in the workload is the one that the estimator derives from its bytes."""
    texts = draw_texts(np.arange(1, 60), np.random.default_rng(0))
    kinds = [text_kind(look(texts.text(request))).value for request in range(59)]
    assert [texts.category(request) for request in range(59)] == kinds


def test_a_router_given_the_kind_of_text_learns_the_same_categories() -> None:
    """Those of an estimator that examines each text itself, under the names of tenants."""
    lengths = Lengths(np.array([50, 300, 900]), np.array([5, 9, 20]), "test")
    workload = poisson_workload(lengths, 10, 200, DeclaredRule.TRUTH, np.random.default_rng(0))
    estimator = EmaEstimator(EstimatorSettings())
    router = LearningRouter(workload, Pools([Pool("short", 512), Pool("long", 4096)]), estimator)
    for request in range(len(workload)):
        router.place(request)
        router.learn(request, int(workload.output[request]))
    learned = {row.category.key for row in estimator.state().categories}
    kinds = {text_kind(look(workload.texts.text(r))).value for r in range(len(workload))}
    assert learned == {tenant_key(kind) for kind in kinds}


@pytest.mark.parametrize("contexts", [(8192,), (1024, 8192)])
def test_a_search_that_gives_up_early_finds_the_same_fleet(
    contexts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and percentiles equal those of a search that runs every fleet to its end."""
    rng = np.random.default_rng(3)
    work = Lengths(rng.integers(200, 2000, 3000), rng.integers(50, 250, 3000), "even")
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    # Refused outputs are replayed on the long pool; cut ones, more than a fleet may have, would end the search.
    setup = Setup("llama-3-8b", "h100-80g", instance, 8192, Objective(ttft_s=0.3), refuses_outputs=True)
    task = SearchTask(Design("d", contexts), setup, work, DeclaredRule.TRUTH, 90, 4000, 2, "ema")

    early = smallest_fleets(task)
    monkeypatch.setattr(search, "run_unless_hopeless", run_fleet)

    # As text: nan, where there are too few requests for a figure, does not equal itself.
    assert repr(smallest_fleets(task)) == repr(early)


@pytest.mark.parametrize("prompt", [3000, 5000])
def test_one_pool_is_searched_once_if_every_request_fits_the_smaller_context(
    prompt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two contexts that both hold every request share one search, with the results of two; a context
    that refuses requests has its own search.
    """
    work = Lengths(np.array([300, prompt]), np.array([20, 40]), "two kinds")
    catalogue = built_in()
    instance = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("llama-3-8b", "h100-80g", instance, 8192, Objective(success=0.0))
    tasks = [
        SearchTask(Design(f"{context}", (context,)), setup, work, DeclaredRule.TRUTH, 40, 2000, 1)
        for context in (8192, 4096)
    ]
    alone = [smallest_fleets(task) for task in tasks]
    searched: list[str] = []

    def counted(task: SearchTask, progress: object) -> tuple[FoundFleet, ...]:
        searched.append(task.design.name)
        return smallest_fleets(task)

    monkeypatch.setattr(runner, "smallest_fleets", counted)
    estimates = runner.search_all(tasks, 1, ResultCache(None), lambda *_: None)

    assert repr([estimate.found for estimate in estimates]) == repr(alone)  # as text, because of nan
    assert searched == (["8192"] if prompt == 3000 else ["8192", "4096"])


@pytest.mark.parametrize("gpus", [1, 3, 7, 11])
def test_money_is_in_whole_cents(gpus: int) -> None:
    """A year of GPUs at 2.95 USD an hour has no more digits, in the cost model and in the costs of a fleet."""
    catalogue = built_in()
    one = Instance(catalogue.model("llama-3-8b"), catalogue.gpu("h100-80g"), 1)
    setup = Setup("8B", "H100", one, 8_192, Objective(), price_usd_h=2.95, spare=0)
    found = FoundFleet(Design("one", (8_192,)), 0, (gpus,), None, 1)  # type: ignore[arg-type]
    fleet = costs_of(setup).of(FleetEstimate(found.design, (found,), 0.0, 0.0, found))
    assert [str(gpus * 295 * 8760 / 100)] * 2 == [str(setup.usd_per_year(gpus)), str(fleet.usd_per_year)]
