"""Names of models: adapters are estimated as their base, and a surplus of names does not evict one another."""

import pytest
from msgspec.structs import replace

from extproc.core.estimator.aliases import OTHERS
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.protocol import Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.usage import Usage
from tests.unit.byteclass_lessons import WORDS, facts, teach

PROMPT = facts((WORDS * 20)[:1_600])
SMALL_POOL = 1_600 / 4 * 1.25  # tokens: a learned bound fits, the prior's does not


def learned(estimator: ByteClassEstimator, model: str, position: int) -> float:
    """Learn from a response of a model at four bytes per token; return the bound before it."""
    request = replace(PROMPT, model=model, text=PROMPT.text[position % 40 :])
    estimate = estimator.estimate(request, "")
    estimator.observe(estimate, Usage(len(request.text) // 4))
    return estimate.prompt_bound


def models_of(estimator: ByteClassEstimator) -> set[str]:
    """Return the model names that have their own prices."""
    return {model.model for model in estimator.state().models}


@pytest.mark.parametrize(("name", "parents"), [("m:polite", {}), ("polite", {"polite": "m"})])
def test_an_adapter_is_estimated_as_its_base(name: str, parents: dict[str, str]) -> None:
    """The base is the part before the colon or what the pool reports; adapters teach it from the first request."""
    estimator = ByteClassEstimator(EstimatorSettings())
    estimator.know_parents(parents)
    teach(estimator, 200)
    base, adapter = (estimator.estimate(replace(PROMPT, model=model), "") for model in ("m", name))
    assert base.prompt_tokens == pytest.approx(adapter.prompt_tokens, rel=0.01)
    assert Source.YOUNG is adapter.source
    estimator.observe(adapter, Usage(400))
    assert {"m"} == models_of(estimator)
    assert 201 == estimator.state().models[0].observations


def test_the_part_before_a_colon_is_no_base_unless_it_is_known() -> None:
    """Two sizes of a family, neither of which is ever requested by the bare family name, have separate prices."""
    estimator = ByteClassEstimator(EstimatorSettings())
    for position, model in enumerate(("family:small", "family:large")):
        learned(estimator, model, position)
    assert {"family:small", "family:large"} == models_of(estimator)


def test_a_model_with_prices_keeps_them() -> None:
    """A name that was learned before a pool reported its base keeps its own prices."""
    estimator = ByteClassEstimator(EstimatorSettings())
    learned(estimator, "adapter", 0)
    estimator.know_parents({"adapter": "m"})
    learned(estimator, "adapter", 1)
    assert {"adapter"} == models_of(estimator)


def test_a_surplus_of_names_does_not_thrash() -> None:
    """When 80 names without a known base take turns at 64 places, all fit the smaller pool once learned."""
    estimator = ByteClassEstimator(EstimatorSettings())
    bounds = [learned(estimator, f"adapter {turn % 80}", turn) for turn in range(80 * 24)]
    assert sum(bound > SMALL_POOL for bound in bounds[-320:]) <= 16
    assert OTHERS in models_of(estimator)
    assert 64 == len(models_of(estimator))


def test_an_unused_place_is_reassigned() -> None:
    """A model that has not been used for a long time is evicted in favour of a new one."""
    estimator = ByteClassEstimator(EstimatorSettings(max_models=2))
    learned(estimator, "old", 0)
    for turn in range(40):
        learned(estimator, "busy", turn)
    learned(estimator, "new", 0)
    assert {"busy", "new"} == models_of(estimator)


def test_a_reset_of_a_base_forgets_its_adapters_residuals() -> None:
    """An adapter's residuals are relative to its base's prices, and are dropped with them."""
    estimator = ByteClassEstimator(EstimatorSettings())
    teach(estimator, 200)
    for turn in range(60):
        learned(estimator, "m:polite", turn)
    teach(estimator, 40, ratio=1.5)
    rows = {row.category.model: row.observations for row in estimator.state().categories}
    assert 1 == estimator.state().models[0].generation
    assert "m:polite" not in rows


def test_the_bases_of_adapters_do_not_evict_models_in_use() -> None:
    """If all places are in use, adapters of bases without a place share the model of all other names."""
    estimator = ByteClassEstimator(EstimatorSettings(max_models=3))
    estimator.know_parents({f"adapter {number}": f"base {number}" for number in range(4)})
    learned(estimator, "adapter 0", 0)
    for turn in range(30):
        for name in ("busy", "busier", "adapter 1", "adapter 2", "adapter 3"):
            learned(estimator, name, turn)
    responses = {model.model: model.observations for model in estimator.state().models}
    assert {"busy": 30, "busier": 30, OTHERS: 90} == responses


def test_a_model_without_a_place_has_no_previous_prices() -> None:
    """What stands in for models without a place does not take the place of one whose prices were replaced, and
    neither do they come back once it has a place again: replicas would take others' part of them for its own.
    """
    estimator = ByteClassEstimator(EstimatorSettings(max_models=2))
    teach(estimator, 200)
    teach(estimator, 40, ratio=1.5)
    assert 1 == estimator.state().models[0].generation
    for name in ("busy", "new", "busy"):
        for turn in range(40):
            learned(estimator, name, turn)
    assert {"busy", "new"} == models_of(estimator)
    assert not estimator.undo("m")
    assert {"busy", "new"} == models_of(estimator)
    for turn in range(40):
        learned(estimator, "busy", turn)
    learned(estimator, "m", 0)
    assert {"busy": 0, "m": 0} == {model.model: model.generation for model in estimator.state().models}
    assert not estimator.undo("m")
    assert 1 == estimator.state().models[-1].observations
